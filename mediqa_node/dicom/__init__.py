"""DICOM datasets and arrays to values. Pure: no I/O, no network connections, no torch."""
