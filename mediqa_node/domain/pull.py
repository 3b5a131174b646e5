"""Series that this node has an archive send to it, for baselines and backfill."""

from dataclasses import dataclass
from enum import StrEnum


class PullState(StrEnum):
    """How far a series of an archive is. One that was interrupted is still `MOVING`, and asked for again."""

    MOVING = "moving"
    PULLED = "pulled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedSeries:
    """A series as an archive describes it; "" and None where it does not.

    Attributes:
        study_date: (0008,0020), eight digits.
        n_instances: Number of Series Related Instances (0020,1209).
    """

    study_instance_uid: str
    series_instance_uid: str
    study_date: str = ""
    modality: str = ""
    description: str = ""
    n_instances: int | None = None
