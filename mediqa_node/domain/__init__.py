"""Frozen value types and errors: no I/O, only the standard library and numpy."""
