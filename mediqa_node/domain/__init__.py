"""The words of the field as frozen values: no I/O, nothing but the standard library and numpy."""
