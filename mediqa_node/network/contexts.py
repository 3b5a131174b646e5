"""Storage classes and transfer syntaxes that this node supports."""

from collections.abc import Iterable

from pynetdicom.presentation import AllStoragePresentationContexts

VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
"""The well-known SOP Instance of the Storage Commitment Push Model (PS3.4 section J.3.5)."""
PERFORMED_PROCEDURE_STEP = "1.2.840.10008.3.1.2.3.3"
SCP_CALLERS = frozenset({STORAGE_COMMITMENT})
"""Of these classes a caller may be the SCP: an archive that reports its commitment (PS3.4 section J.3.3)."""
SR_SOP_CLASSES = {
    "comprehensive3d": "1.2.840.10008.5.1.4.1.1.88.34",
    "comprehensive": "1.2.840.10008.5.1.4.1.1.88.33",
    "enhanced": "1.2.840.10008.5.1.4.1.1.88.22",
}

RETIRED_CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("3", "5", "6", "12.3", "77.1", "77.2"))
"""Retired classes of ultrasound, nuclear medicine, biplane and visible light that old devices still send."""

_IMPLICIT_LITTLE, _EXPLICIT_LITTLE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"

SupportedContexts = dict[str, tuple[str, ...]]
"""Transfer syntaxes by abstract syntax."""


def storage_classes(private: Iterable[str] = ()) -> tuple[str, ...]:
    """Return every standard Storage SOP Class and the private ones that a site lists.

    All are accepted and kept: a rejected class can fail the whole send job of a scanner.
    """
    standard = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
    return tuple(sorted(standard.union(RETIRED_CLASSES, private)))


def acceptor_contexts(
    transfer_syntaxes: Iterable[str], private_sop_classes: Iterable[str] = (), services: Iterable[str] = ()
) -> SupportedContexts:
    """Return the contexts that the node supports as SCP: of Storage, with syntaxes that the installed decoders decode.

    A scanner that is refused JPEG 2000 falls back to another syntax; an accepted syntax without a
    decoder would leave images that cannot be assessed.

    Args:
        services: abstract syntaxes of other services.
    """
    syntaxes = tuple(transfer_syntaxes)
    return {
        **dict.fromkeys(storage_classes(private_sop_classes), syntaxes),
        **dict.fromkeys((VERIFICATION, *services), (_IMPLICIT_LITTLE, _EXPLICIT_LITTLE)),
    }
