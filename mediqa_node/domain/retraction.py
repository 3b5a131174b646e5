"""Why a report that may stand in an archive is taken back."""

from enum import StrEnum


class VoidReason(StrEnum):
    """Why a delivered report is no longer valid. PS3.16 CID 7031 has the titles of the notes that say so for images."""

    WRONG_PATIENT = "wrong_patient"
    REJECTED = "rejected"
    UNSAFE = "unsafe"
    WITHDRAWN = "withdrawn"
