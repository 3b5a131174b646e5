"""Storage classes and transfer syntaxes that this node supports."""

from collections.abc import Iterable

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

_ROOT = "1.2.840.10008.5.1.4."
_STORAGE = """
1.1.1 1.1.1.1 1.1.1.1.1 1.1.1.2 1.1.1.2.1 1.1.1.3 1.1.1.3.1 1.1.2 1.1.2.1 1.1.2.2 1.1.3.1 1.1.4 1.1.4.1 1.1.4.2
1.1.4.3 1.1.4.4 1.1.6.1 1.1.6.2 1.1.6.3 1.1.7 1.1.7.1 1.1.7.2 1.1.7.3 1.1.7.4 1.1.9.1.1 1.1.9.1.2 1.1.9.1.3
1.1.9.1.4 1.1.9.2.1 1.1.9.3.1 1.1.9.4.1 1.1.9.4.2 1.1.9.5.1 1.1.9.6.1 1.1.9.6.2 1.1.9.7.1 1.1.9.7.2 1.1.9.7.3
1.1.9.7.4 1.1.9.8.1 1.1.9.100.1 1.1.9.100.2 1.1.11.1 1.1.11.2 1.1.11.3 1.1.11.4 1.1.11.5 1.1.11.6 1.1.11.7 1.1.11.8
1.1.11.9 1.1.11.10 1.1.11.11 1.1.11.12 1.1.12.1 1.1.12.1.1 1.1.12.2 1.1.12.2.1 1.1.13.1.1 1.1.13.1.2 1.1.13.1.3
1.1.13.1.4 1.1.13.1.5 1.1.14.1 1.1.14.2 1.1.20 1.1.30 1.1.66 1.1.66.1 1.1.66.2 1.1.66.3 1.1.66.4 1.1.66.5 1.1.66.6
1.1.66.7 1.1.66.8 1.1.67 1.1.68.1 1.1.68.2 1.1.77.1.1 1.1.77.1.1.1 1.1.77.1.2 1.1.77.1.2.1 1.1.77.1.3 1.1.77.1.4
1.1.77.1.4.1 1.1.77.1.5.1 1.1.77.1.5.2 1.1.77.1.5.3 1.1.77.1.5.4 1.1.77.1.5.5 1.1.77.1.5.6 1.1.77.1.5.7 1.1.77.1.5.8
1.1.77.1.6 1.1.77.1.7 1.1.77.1.8 1.1.77.1.9 1.1.78.1 1.1.78.2 1.1.78.3 1.1.78.4 1.1.78.5 1.1.78.6 1.1.78.7 1.1.78.8
1.1.79.1 1.1.80.1 1.1.81.1 1.1.82.1 1.1.88.11 1.1.88.22 1.1.88.33 1.1.88.34 1.1.88.35 1.1.88.40 1.1.88.50 1.1.88.59
1.1.88.65 1.1.88.67 1.1.88.68 1.1.88.69 1.1.88.70 1.1.88.71 1.1.88.72 1.1.88.73 1.1.88.74 1.1.88.75 1.1.88.76
1.1.88.77 1.1.90.1 1.1.91.1 1.1.104.1 1.1.104.2 1.1.104.3 1.1.104.4 1.1.104.5 1.1.128 1.1.128.1 1.1.130 1.1.131
1.1.200.2 1.1.200.8 1.1.481.1 1.1.481.2 1.1.481.3 1.1.481.4 1.1.481.5 1.1.481.6 1.1.481.7 1.1.481.8 1.1.481.9
1.1.481.10 1.1.481.11 1.1.481.12 1.1.481.13 1.1.481.14 1.1.481.15 1.1.481.16 1.1.481.17 1.1.481.18 1.1.481.19
1.1.481.20 1.1.481.21 1.1.481.22 1.1.481.23 1.1.481.24 1.1.481.25 34.7 34.10
"""
"""Every standard Storage SOP Class below the root (PS3.4 table B.5-1), as pynetdicom has them and a test compares: the
library itself would cost the receiver 7 MB, and callers who wait for its restart 30 ms."""

RETIRED_CLASSES = tuple(f"{_ROOT}1.1.{end}" for end in ("3", "5", "6", "12.3", "77.1", "77.2"))
"""Retired classes of ultrasound, nuclear medicine, biplane and visible light that old devices still send."""

_IMPLICIT_LITTLE, _EXPLICIT_LITTLE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"

SupportedContexts = dict[str, tuple[str, ...]]
"""Transfer syntaxes by abstract syntax."""


def storage_classes(private: Iterable[str] = ()) -> tuple[str, ...]:
    """Return every standard Storage SOP Class and the private ones that a site lists.

    All are accepted and kept: a rejected class can fail the whole send job of a scanner.
    """
    standard = (f"{_ROOT}{end}" for end in _STORAGE.split())
    return tuple(sorted({*standard, *RETIRED_CLASSES, *private}))


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
