"""Errors, named by who has to act.

Every message states what was attempted, what was found and what to do. UIDs may appear in a
message, patient names and identifiers never. `retryable` is the only flag: the same call may
succeed later without a change of configuration or code.
"""

import re
import traceback

from mediqa_node.domain.series import Reason, ReasonCode, parse_state


class MediqaError(Exception):
    """Base of every error that this package raises on purpose."""

    retryable = False


def fault_of(error: BaseException) -> str:
    """Name an error that nobody foresaw: class, element and place, without its message, which may quote a header.

    >>> fault_of(NotImplementedError("Unknown Value Representation 'ZZ' in tag (0008,1010)"))
    'NotImplementedError, element (0008,1010)'
    >>> fault_of(UndecodablePixels("no table of colours"))
    'no table of colours'
    """
    if isinstance(error, MediqaError):
        return str(error)
    element = re.search(r"\(([0-9A-Fa-f]{4}), ?([0-9A-Fa-f]{4})\)", str(error))
    where = f", element ({element[1]},{element[2]})" if element else ""
    ours = [place for place in traceback.extract_tb(error.__traceback__) if "mediqa_node" in place.filename]
    at = f", {ours[-1].filename.rpartition('mediqa_node/')[2]}:{ours[-1].lineno}" if ours else ""
    return f"{type(error).__name__}{where}{at}"


class ConfigurationError(MediqaError):
    """The person who wrote the configuration has to act: file, key, value, what is allowed."""


class InvalidInstance(MediqaError):
    """The sender has to act: it sent no usable DICOM instance.

    Args:
        comment: shown to the sender as Error Comment (0000,0902); cut to 64 characters there.
        offending: tag of the element at fault, for Offending Element (0000,0901).
        status: DIMSE status, PS3.4 B.2.3: 0xC000 cannot understand, 0xA900 does not match class.
    """

    def __init__(self, comment: str, *, offending: int | None = None, status: int = 0xC000) -> None:
        super().__init__(comment)
        self.offending = offending
        self.status = status


class JobFailed(MediqaError):
    """We have to act: a job met an error that nobody foresaw. The message is `fault_of` it."""


class StorageFailed(MediqaError):
    """The administrator has to act: disk, quota or database refused a write. The sender keeps its copy."""

    retryable = True


class InconsistentGeometry(MediqaError):
    """Orientation or position of an image plane contradicts PS3.3 C.7.6.2."""


class UndecodablePixels(MediqaError):
    """Pixel data could not be turned into an array: broken, over budget, or no decoder."""


class UnreadableElement(UndecodablePixels):
    """A header element that decides what pixels mean or where they lie holds no number; the message names it."""


class ImplausibleElement(UnreadableElement):
    """Such an element holds a number, or a word, that cannot be true; the message names it."""


class NotScorable(MediqaError):
    """The series ends as NOT_SCORED: it is nothing that the node assesses. Never a fault of the node.

    Args:
        code: a `domain.series.ReasonCode` by name, or a code of an export.
        detail: the fact behind it, with tag and value.
        measured: numbers behind the detail, for `--verbose`; not part of the message.
    """

    def __init__(self, code: str, detail: str = "", *, measured: str = "") -> None:
        self.reason = Reason(parse_state(ReasonCode, code), detail)
        super().__init__(str(self.reason))
        self.detail = detail
        self.measured = measured

    @property
    def code(self) -> ReasonCode | str:
        """The code alone."""
        return self.reason.code


class CheckpointRefused(MediqaError):
    """Weights or their card cannot be honoured: missing, wrong digest, unknown size or preprocessing."""


class PromotionRefused(MediqaError):
    """The promoter has to act: the checkpoint is active already, failed its trial, or does not exist."""


class ReferenceDamaged(MediqaError):
    """The administrator has to act: a file of the reference set is missing or differs from the package."""


class RatingsRefused(MediqaError):
    """The author of a rating table has to act: it is not a table, or contains impossible values."""


class PeerUnavailable(MediqaError):
    """The peer did not answer, refused for now, or broke off: the delivery is tried again.

    Args:
        message: what was attempted, and what came of it.
        again_after_s: how long the peer asked to be left alone; 0 if it did not say.
    """

    retryable = True

    def __init__(self, message: str, *, again_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.again_after_s = again_after_s


class OutOfResources(PeerUnavailable):
    """The peer has refused the object for now (0xA7xx): it has not stored it."""


class QueryUnanswered(PeerUnavailable):
    """The peer offers C-FIND and failed to answer it, or kept silent."""


class PeerRefused(MediqaError):
    """The peer rejects this object: the delivery is parked for manual action.

    Args:
        message: what was attempted, and the peer's answer.
        status: its DIMSE status, or None if the association was rejected.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class AmbiguousKey(MediqaError):
    """Whoever typed a short key has to type more of it: several series have it."""
