"""Who sends, who receives, and in what state a series is."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A configured DICOM application entity. Nothing is ever sent anywhere else.

    Attributes:
        name: the key in the configuration.
        ae_title: at most 16 characters (PS3.8).
        sr_sop_class: `auto`, `comprehensive3d`, `comprehensive` or `enhanced`.
        authority: a corrected copy from this peer replaces the current one.
    """

    name: str
    ae_title: str
    host: str
    port: int
    sr_sop_class: str = "auto"
    authority: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedInstance:
    """One instance as it lies in the spool, before and after its row is committed.

    Attributes:
        path: relative to the spool's root, server-made; never derived from a UID.
        sha256: hex, over the encoded dataset without file meta.
        size_bytes: of the encoded dataset.
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
