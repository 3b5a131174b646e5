"""The DICOM conformance statement (PS3.2), printed from the code, so that it cannot say anything else.

`mediqa-node conformance > mediqa_node/CONFORMANCE.md`; a test compares the two.
"""

from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields

from pydicom.uid import UID

from mediqa_node import __version__
from mediqa_node.decode.syntaxes import decodable_transfer_syntaxes
from mediqa_node.dicom.companions.request import COMPANION_CLASSES
from mediqa_node.dicom.deidentify import native_pixels
from mediqa_node.dicom.deidentify.instance import METHODS
from mediqa_node.domain import implementation
from mediqa_node.domain.policy import CompletionRules, DeliveryRules, ReceiverPolicy, Retention
from mediqa_node.network import contexts, dimse, negotiation, pdu_stream, receiver, sender
from mediqa_node.pipeline import completion

_STATUSES = (
    (dimse.SUCCESS, "Success", "the instance is durable: file and index survive the loss of power"),
    (dimse.SUCCESS, "Success", "same UID, same bytes: nothing is stored twice"),
    (dimse.SUCCESS, "Success", "same UID, other bytes: kept beside the first, compared, never overwritten"),
    (dimse.NOT_AUTHORIZED, "Not authorized", "the caller's `allowed` rule has `store: false`"),
    (dimse.OUT_OF_RESOURCES, "Out of resources", "disk, quota or database refused; also anything unforeseen"),
    (dimse.DOES_NOT_MATCH, "Data set does not match SOP class", "dataset, command and presentation context differ"),
    (
        dimse.CANNOT_UNDERSTAND,
        "Cannot understand",
        "empty, truncated, unparsable, nested deeper than 32, no valid UID",
    ),
)

_REJECTIONS = (
    (negotiation.CALLED_AE_NOT_RECOGNISED, "called AE title is not ours"),
    (negotiation.CALLING_AE_NOT_RECOGNISED, "calling AE title or address matches no `allowed` rule"),
    (negotiation.LOCAL_LIMIT_EXCEEDED, "too many associations, in all or for this AE title"),
    (negotiation.TEMPORARY_CONGESTION, "free space is below the watermark, or the node is stopping"),
)

_SENDER_STATUSES = (
    (sorted(sender.STORED), "stored; warnings are kept with the delivery"),
    ([0xA700], "0xA7xx: tried again, with growing pauses"),
    (
        [0xA900, 0xC000, 0x0122, 0x0124],
        "and any other failure: parked; `mediqa-node retry` sends it again",
    ),
)


def statement() -> str:
    """Return the statement as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# DICOM conformance statement: mediqa-node"
    yield ""
    yield f"Version {__version__}. Printed by `mediqa-node conformance`; research use only, not for diagnosis."
    yield f"Implementation Class UID `{implementation.IMPLEMENTATION_CLASS_UID}`, Implementation Version Name"
    yield f"`{implementation.IMPLEMENTATION_VERSION_NAME}`. IHE AIR: not claimed. TLS: not offered in this version."
    yield from _section("As SCP: Verification and Storage")
    yield f"Largest PDU received: {pdu_stream.MAX_PDU_BYTES:,} bytes. No asynchronous operations, no role selection, no"
    yield "extended negotiation. Storage level 2 (full): every element of a dataset is kept as it came, byte by byte."
    yield from _section("Storage status", level=3)
    yield from _table(("status", "meaning", "when"), ((f"0x{c:04X}", m, w) for c, m, w in _STATUSES))
    yield ""
    yield "A refused C-STORE carries Error Comment (0000,0902) and, where one element is at fault, Offending Element"
    yield "(0000,0901); the association goes on."
    yield from _section("Association rejection", level=3)
    yield from _table(("result, source, reason", "when"), ((", ".join(map(str, r)), w) for r, w in _REJECTIONS))
    yield from _section("As SCU: Structured Reports, Query, Verification")
    yield from _table(("SOP class", "UID", "when"), _proposed())
    yield ""
    yield "Comprehensive 3D SR, else Comprehensive SR, else Enhanced SR, whichever the destination accepts first"
    yield "(`peers.*.sr_sop_class` fixes one). Before each report the destination is asked for the study by C-FIND"
    yield "(Study Root); another patient or accession number withholds the report. C-ECHO for `mediqa-node echo`."
    yield "What goes with a report follows it over another association, after the same question; a destination that"
    yield "does not accept its class, refuses it, or has not taken it at the third try within half an hour has the"
    yield "report alone, and that is noted with the delivery. Proposed transfer syntaxes: Explicit and Implicit VR"
    yield "Little Endian."
    yield ""
    rows = ((", ".join(f"0x{code:04X}" for code in codes), what) for codes, what in _SENDER_STATUSES)
    yield from _table(("status of the destination", "what follows"), rows)
    yield from _section("De-identification on export")
    yield f"`mediqa-node export --payload dicom` writes Part 10 files in {native_pixels.TRANSFER_SYNTAX.name}, never to"
    yield "the network. Only attributes of `dicom/deidentify/allow_list.py` are kept, at any depth: of PS3.15"
    yield "table E.1-1 sex, and age as a decade. UIDs and Patient ID become keyed pseudonyms; dates and times are"
    yield "removed, dummies stand where"
    yield "multi-frame objects want one. Burned-in text is not looked for."
    yield ""
    yield from _table(("De-identification Method Code (0012,0064)", "meaning"), METHODS)
    yield from _section("Default limits")
    yield from _limits()
    yield from _section("Transfer syntaxes accepted")
    yield "For every Storage class: those that the installed decoders decode. For Verification: the uncompressed two."
    yield ""
    yield from _table(("name", "UID"), ((UID(uid).name, f"`{uid}`") for uid in decodable_transfer_syntaxes()))
    yield from _section("Storage classes accepted")
    yield f"{len(contexts.storage_classes())} standard classes, and those under `receiver.private_sop_classes`."
    yield "CT, MR and ophthalmic photography are judged; all others are kept and harvested where they say something"
    yield "(radiation dose SR, reject notes)."
    yield ""
    yield from _table(("name", "UID"), ((UID(uid).name, f"`{uid}`") for uid in contexts.storage_classes()))


def _proposed() -> Iterator[tuple[str, str, str]]:
    """What an association for a report proposes, and what one for C-ECHO does."""
    for uid in contexts.SR_SOP_CLASSES.values():
        yield UID(uid).name, f"`{uid}`", "report"
    for key, uid in COMPANION_CLASSES.items():
        yield UID(uid).name, f"`{uid}`", f"`companions.{key}: true`; off by default"
    yield UID(sender.STUDY_ROOT_FIND).name, f"`{sender.STUDY_ROOT_FIND}`", "before each report"
    yield UID(contexts.VERIFICATION).name, f"`{contexts.VERIFICATION}`", "`mediqa-node echo`"


def _limits() -> Iterator[str]:
    rows: list[tuple[str, str]] = []
    for section, kind in (
        ("receiver", ReceiverPolicy),
        ("completion", CompletionRules),
        ("delivery", DeliveryRules),
        ("retention", Retention),
    ):
        rows += [
            (
                f"`{section}.{field.name}`",
                f"{field.default:,}" if isinstance(field.default, int | float) else str(field.default),
            )
            for field in fields(kind)
            if field.default is not MISSING and not isinstance(field.default, tuple)
        ]
    rows.append(("backlog of the listening socket", str(receiver.BACKLOG)))
    rows.append(("silence on an open association that ends a series", f"{completion.IDLE_ON_OPEN_ASSOCIATION_S:g} s"))
    yield from _table(("limit", "default"), rows)


def _value(default: object) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    return f"{default:,}" if isinstance(default, int | float) else str(default)


def _section(title: str, level: int = 2) -> tuple[str, str, str]:
    return "", f"{'#' * level} {title}", ""


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    yield from ("| " + " | ".join(row) + " |" for row in rows)
