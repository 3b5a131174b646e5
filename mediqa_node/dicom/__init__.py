"""Datasets and arrays in, values out: no I/O, no network, no torch."""
