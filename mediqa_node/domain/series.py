"""Received instances and the states of a series, its instances and its deliveries.

Every state is an enum that is stored as its value. The text that people read is built from the code
and a detail; no program reads it back.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from mediqa_node.domain.identity import Identity

_State = TypeVar("_State", bound=StrEnum)


def parse_state(kind: type[_State], value: str) -> _State | str:
    """Return the enum member for a stored value; the value itself if this version has no such member.

    >>> parse_state(SeriesState, "READY")
    <SeriesState.READY: 'READY'>
    >>> parse_state(SeriesState, "FROM_A_LATER_VERSION")
    'FROM_A_LATER_VERSION'
    """
    try:
        return kind(value)
    except ValueError:
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedInstance:
    """One instance in the spool, before and after its row is committed.

    Attributes:
        path: relative to the spool's root, made by the server; never derived from a UID.
        sha256: hex, over the encoded dataset without file meta.
        size_bytes: of the encoded dataset.
        series_number: Series Number (0020,0011); None where absent or no integer.
        identity: patient and visit that its header names.
        forward_to: names of the peers that it is forwarded to.
        move_originator: Move Originator AE Title (0000,1030): who had it moved here; None: nobody.
        pulled: this node had it moved here.
    """

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    association_id: str
    received_at: datetime
    path: str
    sha256: str
    size_bytes: int
    series_number: int | None = None
    identity: Identity = Identity()
    forward_to: tuple[str, ...] = ()
    move_originator: str | None = None
    pulled: bool = False


class SeriesState(StrEnum):
    """Life of a series; a late instance returns it to RECEIVING from anywhere."""

    RECEIVING = "RECEIVING"
    READY = "READY"
    ASSESSED = "ASSESSED"
    DELIVERED = "DELIVERED"
    CONFIRMED = "CONFIRMED"
    NOT_SCORED = "NOT_SCORED"
    WITHHELD = "WITHHELD"
    PARKED = "PARKED"


END_STATES = frozenset({SeriesState.DELIVERED, SeriesState.CONFIRMED, SeriesState.NOT_SCORED})


class Completed(StrEnum):
    """Why a series counts as complete; `pipeline.completion` has the rules."""

    ANNOUNCED = "announced"
    CONTIGUOUS = "contiguous"
    QUIET = "quiet"
    FORCED = "forced"


class ReasonCode(StrEnum):
    """Why a series is in its state."""

    # RECEIVING again
    LATE_INSTANCE = "late_instance"
    LOST_FILE_RETURNED = "lost_file_returned"
    CORRECTED_COPY = "corrected_copy"
    REJECT_NOTE = "reject_note"
    OTHER_RECONSTRUCTION_FAILED = "other_reconstruction_failed"
    SENT_LIVE = "sent_live"

    # ASSESSED, and nothing follows
    NO_DESTINATION = "no_destination"
    PULLED = "pulled"
    DELIVERY_CANCELLED = "delivery_cancelled"
    BACK_SCORED = "back_scored"

    # NOT_SCORED: what is no image of a patient's body
    NO_IMAGES = "no_images"
    NO_IMAGE = "no_image"
    NOT_AN_IMAGE = "not_an_image"
    SECONDARY_CAPTURE = "secondary_capture"
    MODALITY = "modality"
    LOCALIZER = "localizer"
    DOCUMENT = "document"
    PHANTOM = "phantom"
    REFORMAT = "reformat"
    MAP = "map"
    MOSAIC = "mosaic"
    BURNED_IN = "burned_in"
    COLOUR = "colour"
    STRIP = "strip"
    FRAMES_IN_SINGLE_FRAME_CLASS = "frames_in_single_frame_class"
    OWN_REPORT = "own_report"
    NOT_A_FUNDUS_PHOTOGRAPH = "not_a_fundus_photograph"
    # NOT_SCORED: a fundus photograph that shows too little of the field
    FIELD_TOO_DARK = "field_too_dark"
    FIELD_COVERED = "field_covered"
    # NOT_SCORED: what cannot be read
    UNREADABLE = "unreadable"
    IMPLAUSIBLE = "implausible"
    UNDECODABLE = "undecodable"
    UNIDENTIFIED = "unidentified"
    # NOT_SCORED: decided otherwise
    PURGED = "purged"
    REJECTED = "rejected"
    TOO_OLD = "too_old"
    NO_PRIMARY_RULE = "no_primary_rule"
    EXCLUDED_BY_RULE = "excluded_by_rule"
    OTHER_RECONSTRUCTION = "other_reconstruction"
    OUTSIDE_TRAINING_RANGE = "outside_training_range"

    # WITHHELD
    IDENTITY = "identity"
    NO_PATIENT_ID = "no_patient_id"
    UNTRAINED = "untrained"
    CONSTANCY_DRIFT = "constancy_drift"
    CONSTANCY_UNKNOWN = "constancy_unknown"

    # PARKED
    FILE_MISSING = "file_missing"
    FILE_CHANGED = "file_changed"
    SCORING_FAILED = "scoring_failed"

    # WITHHELD or PARKED because of a delivery
    DELIVERY = "delivery"


UNPROVEN = (ReasonCode.CONSTANCY_DRIFT, ReasonCode.CONSTANCY_UNKNOWN)
"""Withheld until a constancy check is good, or its drift is accepted."""

_WORDS = {
    ReasonCode.LOST_FILE_RETURNED: "a lost file was received again",
    ReasonCode.CORRECTED_COPY: "corrected copy",
    ReasonCode.OTHER_RECONSTRUCTION_FAILED: "the other reconstruction could not be scored",
    ReasonCode.SENT_LIVE: "its source sent it after it was pulled",
    ReasonCode.NO_DESTINATION: "no destination asks for it",
    ReasonCode.PULLED: "pulled from an archive, never reported",
    ReasonCode.BACK_SCORED: "back-scored, not reported",
    ReasonCode.OTHER_RECONSTRUCTION: "another reconstruction of this acquisition is scored",
    ReasonCode.CONSTANCY_DRIFT: "constancy",
    ReasonCode.CONSTANCY_UNKNOWN: "constancy",
    ReasonCode.FILE_MISSING: "a spooled file is missing; `mediqa-node verify` names it",
    ReasonCode.FILE_CHANGED: "a spooled file has changed",
    ReasonCode.SCORING_FAILED: "scoring",
    ReasonCode.TOO_OLD: "policy",
    ReasonCode.NO_PRIMARY_RULE: "policy",
    ReasonCode.EXCLUDED_BY_RULE: "policy",
    ReasonCode.UNTRAINED: "untrained",
    ReasonCode.NO_PATIENT_ID: "identity",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a series is in its state: a code to act on, and a detail for people.

    Attributes:
        code: a member of ReasonCode, or what a later version wrote.
        detail: the fact behind it; "" if the code is enough.
    """

    code: ReasonCode | str
    detail: str = ""

    def __str__(self) -> str:
        """Return the reason as people read it.

        >>> str(Reason(ReasonCode.LOCALIZER, "Image Type (0008,0008) SCOUT"))
        'localizer: Image Type (0008,0008) SCOUT'
        """
        if self.code is ReasonCode.DELIVERY:
            return self.detail
        words = _WORDS.get(self.code) if isinstance(self.code, ReasonCode) else None
        text = words or self.code.replace("_", " ")
        return f"{text}: {self.detail}" if self.detail else text


class InstanceStatus(StrEnum):
    """The state of a kept copy of an instance; exactly one copy per SOP Instance UID is CURRENT.

    A further copy is a CANDIDATE until it was compared: then SAME; DISPUTED where it names another patient or study;
    CONFLICT where its content differs. A disputed copy may become CURRENT and the earlier one SUPERSEDED. REJECTED:
    named by a reject note.
    """

    CURRENT = "current"
    CANDIDATE = "candidate"
    SAME = "same"
    SUPERSEDED = "superseded"
    DISPUTED = "disputed"
    CONFLICT = "conflict"
    REJECTED = "rejected"


class CopyDecision(StrEnum):
    """Which of two copies of an image with different identities is kept, and on what grounds."""

    SOURCE = "source"
    AUTHORITY = "authority"
    KEEP_FIRST = "keep_first"
    KEEP_LAST = "keep_last"


class DeliveryState(StrEnum):
    """One report on its way to one destination."""

    WAITING = "waiting"
    SENT = "sent"
    CONFIRMED = "confirmed"
    PARKED = "parked"
    WITHHELD = "withheld"
    SUPERSEDED = "superseded"


ARRIVED = (DeliveryState.SENT, DeliveryState.CONFIRMED)
"""Deliveries that the destination has taken; it commits to keep those that are confirmed (PS3.4 annex J)."""


UNFINISHED = (DeliveryState.WAITING, DeliveryState.PARKED, DeliveryState.WITHHELD)
"""Deliveries that may still send something."""
HELD = (DeliveryState.PARKED, DeliveryState.WITHHELD)
"""Deliveries that need a person."""


class DeliveryReason(StrEnum):
    """Why a delivery is in its state."""

    # waiting
    STUDY_NOT_THERE_YET = "study_not_there_yet"
    COPY_BEING_COMPARED = "copy_being_compared"
    DOCUMENT_UNREAD = "document_unread"
    IMAGES_ON_THEIR_WAY = "images_on_their_way"
    NO_ANSWER = "no_answer"
    IDENTITY_UNANSWERED = "identity_unanswered"
    # waiting, and parked the second time
    NOT_COMMITTED = "not_committed"
    # sent
    STUDY_NOT_THERE = "study_not_there"
    IDENTITY_NOT_CHECKED = "identity_not_checked"
    # withheld
    OTHER_IDENTITY = "other_identity"
    CONFLICTING_COPIES = "conflicting_copies"
    DISPUTED_IDENTITY = "disputed_identity"
    # parked
    REFUSED = "refused"
    NO_REPORT_CLASS = "no_report_class"
    NOT_CONFIGURED = "not_configured"
    GIVEN_UP = "given_up"
    FILE_MISSING = "file_missing"
    NOT_BUILT = "not_built"
    JOB_FAILED = "job_failed"
    # superseded
    SERIES_CHANGED = "series_changed"
    CANCELLED = "cancelled"


class CompanionState(StrEnum):
    """The state of the companions of a sent report."""

    PENDING = "pending"
    SENT = "sent"
    INCOMPLETE = "incomplete"
