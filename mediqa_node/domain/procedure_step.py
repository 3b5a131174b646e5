"""The life of a Modality Performed Procedure Step (PS3.4 section F.7)."""

from enum import StrEnum


class StepStatus(StrEnum):
    """Performed Procedure Step Status (0040,0252); the last two are final."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"
