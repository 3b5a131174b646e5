"""Every Storage SOP Class of the standard (PS3.4 annex B.5), as a table: pynetdicom's costs 45 MB to import.

The receiver accepts them all, because a class that is rejected can fail the whole send job of a
scanner. A test compares the table with pynetdicom's.
"""

_ROOT = "1.2.840.10008.5.1.4.1.1."

_IMAGES = """
    1 1.1 1.1.1 1.2 1.2.1 1.3 1.3.1 2 2.1 2.2 3.1 4 4.1 4.3 4.4 6.1 6.3 7 7.1 7.2 7.3 7.4 12.1 12.1.1 12.2
    12.2.1 13.1.1 13.1.2 13.1.3 13.1.4 13.1.5 14.1 14.2 20 77.1.1 77.1.1.1 77.1.2 77.1.2.1 77.1.3 77.1.4
    77.1.4.1 77.1.5.1 77.1.5.2 77.1.5.4 77.1.5.5 77.1.5.6 77.1.5.7 77.1.6 77.1.7 77.1.8 77.1.9 128 128.1 130
    481.1 481.23 481.24
"""
_RETIRED_IMAGES = "3 5 6 12.3 77.1 77.2"
"""Ultrasound, nuclear medicine, biplane angiography and visible light of old devices that still send."""

_OTHERS = """
    4.2 6.2 9.1.1 9.1.2 9.1.3 9.1.4 9.2.1 9.3.1 9.4.1 9.4.2 9.5.1 9.6.1 9.6.2 9.7.1 9.7.2 9.7.3 9.7.4 9.8.1
    9.100.1 9.100.2 11.1 11.2 11.3 11.4 11.5 11.6 11.7 11.8 11.9 11.10 11.11 11.12 30 66 66.1 66.2 66.3 66.4
    66.5 66.6 66.7 66.8 67 68.1 68.2 77.1.5.3 77.1.5.8 78.1 78.2 78.3 78.4 78.5 78.6 78.7 78.8 79.1 80.1 81.1
    82.1 88.11 88.22 88.33 88.34 88.35 88.40 88.50 88.59 88.65 88.67 88.68 88.69 88.70 88.71 88.72 88.73 88.74
    88.75 88.76 88.77 90.1 91.1 104.1 104.2 104.3 104.4 104.5 131 200.2 200.8 481.2 481.3 481.4 481.5 481.6
    481.7 481.8 481.9 481.10 481.11 481.12 481.13 481.14 481.15 481.16 481.17 481.18 481.19 481.20 481.21 481.22
    481.25
"""

IMAGE_CLASSES = frozenset(_ROOT + end for end in (_IMAGES + _RETIRED_IMAGES).split())
"""Classes named "… Image Storage": an instance without pixel data is not complete."""

STORAGE_CLASSES = (
    IMAGE_CLASSES | {_ROOT + end for end in _OTHERS.split()} | {"1.2.840.10008.5.1.4.34.7", "1.2.840.10008.5.1.4.34.10"}
)
