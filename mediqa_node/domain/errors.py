"""What can go wrong, named by who has to act.

Every error says what was attempted, what was found and what to do. UIDs may appear in a
message, patient names and identifiers never. `retryable` is the only flag: the same call may
succeed later without anybody changing anything but the circumstances.
"""


class MediqaError(Exception):
    """Base of every error that this package raises on purpose."""

    retryable = False


class ConfigurationError(MediqaError):
    """The person who wrote the configuration has to act: file, key, value, what is allowed."""


class InvalidInstance(MediqaError):
    """The sender has to act: what it sent is no usable DICOM instance.

    Args:
        comment: shown to the sender as Error Comment (0000,0902); cut to 64 characters there.
        offending: tag of the element at fault, for Offending Element (0000,0901).
        status: DIMSE status, PS3.4 B.2.3: 0xC000 cannot understand, 0xA900 does not match class.
    """

    def __init__(self, comment: str, *, offending: int | None = None, status: int = 0xC000) -> None:
        super().__init__(comment)
        self.offending = offending
        self.status = status


class StorageFailed(MediqaError):
    """The administrator has to act: disk, quota or database refused a write. The sender keeps its copy."""

    retryable = True


class InconsistentGeometry(MediqaError):
    """Orientation or position of an image plane contradicts PS3.3 C.7.6.2."""


class UndecodablePixels(MediqaError):
    """Pixel data could not be turned into an array: broken, over budget, or no decoder."""


class UnreadableElement(UndecodablePixels):
    """A header element that decides what pixels mean or where they lie holds no number; the message names it."""


class NotScorable(MediqaError):
    """The series ends as NOT_SCORED(reason): out of what the node judges, never a fault of the node.

    Args:
        reason: short code, `policy`, `localizer`, `mosaic`, ...; shown to the user.
        detail: the fact behind it, with tag and value.
        measured: numbers behind the detail, for `--verbose`; not part of the message.
    """

    def __init__(self, reason: str, detail: str = "", *, measured: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.measured = measured


class CheckpointRefused(MediqaError):
    """Weights or their card cannot be honoured: missing, wrong digest, unknown size or preprocessing."""


class PromotionRefused(MediqaError):
    """Whoever wants other weights in force has to act: they are already, failed their test, or there are none."""


class ReferenceDamaged(MediqaError):
    """The administrator has to act: a file of the reference set is missing or not as it was packed."""


class RatingsRefused(MediqaError):
    """Whoever made the table of ratings has to act: it is no table, or something in it cannot be."""


class PeerUnavailable(MediqaError):
    """The peer did not answer, refused for now, or broke off: the delivery is tried again."""

    retryable = True


class PeerRefused(MediqaError):
    """The peer will not take this object as it is: the delivery is parked for a person.

    Args:
        message: what was tried, what the peer said.
        status: its DIMSE status, or None when it was refused at association.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
