"""Received instances on their way to another archive: states, reasons, and the order in which they are sent."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class ForwardState(StrEnum):
    """One instance on its way to one destination."""

    WAITING = "waiting"
    SENT = "sent"
    CONFIRMED = "confirmed"
    HELD = "held"
    PARKED = "parked"
    SUPERSEDED = "superseded"


UNSENT = (ForwardState.WAITING, ForwardState.HELD, ForwardState.PARKED)
"""Forwards whose instance the destination does not have: it is never deleted."""


class ForwardReason(StrEnum):
    """Why a forward is in its state."""

    # waiting
    NO_ANSWER = "no_answer"
    OUT_OF_RESOURCES = "out_of_resources"
    SENT_AGAIN = "sent_again"
    # sent
    ALREADY_THERE = "already_there"
    WITH_WARNING = "with_warning"
    # held: until the copies of the image are compared, or a person has decided
    COPY_BEING_COMPARED = "copy_being_compared"
    OTHER_IDENTITY = "other_identity"
    OTHER_PIXELS = "other_pixels"
    # parked: a person has to act
    REFUSED = "refused"
    CLASS_NOT_ACCEPTED = "class_not_accepted"
    NOT_CONFIGURED = "not_configured"
    FILE_MISSING = "file_missing"
    CORRECTION_REFUSED = "correction_refused"
    NOT_COMMITTED = "not_committed"
    NOT_DECOMPRESSED = "not_decompressed"
    # superseded
    SAME_IMAGE = "same_image"
    REPLACED = "replaced"
    CANCELLED = "cancelled"


class Priority(IntEnum):
    """What is sent first."""

    LIVE = 0
    CORRECTION = 1
    BACKFILL = 2


class Reconciled(StrEnum):
    """What a destination holds of a study, compared with what senders were answered for."""

    COMPLETE = "complete"
    MISSING = "missing"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardQueue:
    """What is not at a destination yet."""

    destination: str
    n_waiting: int
    n_held: int
    n_parked: int
    oldest_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardGap:
    """What a destination has acknowledged and does not hold."""

    destination: str
    n_studies: int
    n_instances: int
