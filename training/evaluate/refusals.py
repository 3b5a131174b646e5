"""What a training range refuses: counted when it is fitted, shown among the gates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """What a training range refuses of a collection.

    Attributes:
        patients, refused: series of patients, and how many of them are outside of limits fitted without their source;
            by modality.
        foreign: number of sets that must not be scored.
        passed: those of them of which a stack is scored: neither headers nor pixels give it away.
    """

    patients: Mapping[str, int]
    refused: Mapping[str, int]
    foreign: int
    passed: Sequence[str]
