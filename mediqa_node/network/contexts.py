"""What this node speaks: Storage classes, transfer syntaxes, and the names it gives itself."""

from collections.abc import Iterable

from pynetdicom.presentation import AllStoragePresentationContexts, PresentationContext, build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

IMPLEMENTATION_CLASS_UID = "2.25.213174894870184063412379046938402126117"
IMPLEMENTATION_VERSION_NAME = "MEDIQA_NODE_010"

VERIFICATION = str(Verification)
SR_SOP_CLASSES = {
    "comprehensive3d": "1.2.840.10008.5.1.4.1.1.88.34",
    "comprehensive": "1.2.840.10008.5.1.4.1.1.88.33",
    "enhanced": "1.2.840.10008.5.1.4.1.1.88.22",
}


def storage_classes(private: Iterable[str] = ()) -> tuple[str, ...]:
    """Return every standard Storage SOP Class and the private ones that a site lists.

    All are accepted and kept: a rejected class can fail the whole send job of a scanner.
    """
    standard = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
    return tuple(sorted(standard | set(private)))


def acceptor_contexts(
    transfer_syntaxes: Iterable[str], private_sop_classes: Iterable[str] = ()
) -> list[PresentationContext]:
    """Return what the Storage SCP supports: only syntaxes that the installed decoders decode.

    A scanner that is refused JPEG 2000 falls back to another syntax; one that is accepted and
    cannot be decoded has sent something nobody can judge.
    """
    syntaxes = list(transfer_syntaxes)
    contexts = [build_context(uid, syntaxes) for uid in storage_classes(private_sop_classes)]
    return [*contexts, build_context(VERIFICATION, ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])]
