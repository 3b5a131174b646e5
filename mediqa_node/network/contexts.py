"""What this node speaks: Storage classes, transfer syntaxes, and the names it gives itself."""

from collections.abc import Iterable

from mediqa_node.dicom.storage_classes import STORAGE_CLASSES

IMPLEMENTATION_CLASS_UID = "2.25.213174894870184063412379046938402126117"
IMPLEMENTATION_VERSION_NAME = "MEDIQA_NODE_010"

VERIFICATION = "1.2.840.10008.1.1"
SR_SOP_CLASSES = {
    "comprehensive3d": "1.2.840.10008.5.1.4.1.1.88.34",
    "comprehensive": "1.2.840.10008.5.1.4.1.1.88.33",
    "enhanced": "1.2.840.10008.5.1.4.1.1.88.22",
}

_IMPLICIT_LITTLE, _EXPLICIT_LITTLE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"

SupportedContexts = dict[str, tuple[str, ...]]
"""Transfer syntaxes by abstract syntax, the preferred first."""


def storage_classes(private: Iterable[str] = ()) -> tuple[str, ...]:
    """Return every standard Storage SOP Class and the private ones that a site lists.

    All are accepted and kept: a rejected class can fail the whole send job of a scanner.
    """
    return tuple(sorted(STORAGE_CLASSES | set(private)))


def acceptor_contexts(transfer_syntaxes: Iterable[str], private_sop_classes: Iterable[str] = ()) -> SupportedContexts:
    """Return what the Storage SCP supports: only syntaxes that the installed decoders decode.

    A scanner that is refused JPEG 2000 falls back to another syntax; one that is accepted and
    cannot be decoded has sent something nobody can judge.
    """
    syntaxes = tuple(transfer_syntaxes)
    return {
        **dict.fromkeys(storage_classes(private_sop_classes), syntaxes),
        VERIFICATION: (_IMPLICIT_LITTLE, _EXPLICIT_LITTLE),
    }
