"""Why a report that may stand in an archive is taken back."""

from enum import StrEnum


class VoidReason(StrEnum):
    """Why a delivered report is no longer valid. PS3.16 CID 7031 has the titles of the notes that say so for images."""

    WRONG_PATIENT = "wrong_patient"
    REJECTED = "rejected"
    UNSAFE = "unsafe"
    WITHDRAWN = "withdrawn"

    def outweighs(self, other: "VoidReason") -> bool:
        """Whether a report that is void for the other reason has to be called void for this one as well."""
        return _WEIGHT.index(self) > _WEIGHT.index(other)


_WEIGHT = (VoidReason.WITHDRAWN, VoidReason.REJECTED, VoidReason.UNSAFE, VoidReason.WRONG_PATIENT)
