"""The DICOM conformance statement (PS3.2 Annex N), generated from the code.

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
from mediqa_node.dicom.reject_note import KEY_OBJECT_SELECTION
from mediqa_node.domain import implementation
from mediqa_node.domain import query as query_keys
from mediqa_node.domain.policy import CompletionRules, DeliveryRules, ReceiverPolicy, Retention
from mediqa_node.network import (
    contexts,
    dicomweb,
    dimse,
    negotiation,
    pdu_stream,
    places,
    receiver,
    retrieve,
    sender,
    statuses,
    web_client,
)
from mediqa_node.pipeline import completion, query

_STATUSES = (
    (dimse.SUCCESS, "Success", "the instance is stored: file and index survive the loss of power"),
    (dimse.SUCCESS, "Success", "same UID, same bytes: not stored again"),
    (
        dimse.SUCCESS,
        "Success",
        "same UID, other bytes: stored in addition to the first and compared; nothing is overwritten",
    ),
    (dimse.NOT_AUTHORIZED, "Not authorized", "the caller's `allowed` rule has `store: false`"),
    (dimse.OUT_OF_RESOURCES, "Out of resources", "disk, quota or database refused the write, or an internal error"),
    (
        dimse.DOES_NOT_MATCH,
        "Data set does not match SOP class",
        "dataset, command and presentation context contradict each other",
    ),
    (
        dimse.CANNOT_UNDERSTAND,
        "Cannot understand",
        "dataset empty, truncated, not parsable, nested deeper than 32, without a valid UID before its pixels, with "
        "elements of groups 0000 to 0006, too costly to check, or with pixels that contradict the transfer syntax",
    ),
)

_REJECTIONS = (
    (negotiation.CALLED_AE_NOT_RECOGNISED, "the called AE title is not that of the node"),
    (negotiation.CALLING_AE_NOT_RECOGNISED, "no rule in `receiver.allowed` matches calling AE title and address"),
    (negotiation.APPLICATION_CONTEXT_NOT_SUPPORTED, "the application context is not that of DICOM"),
    (negotiation.NO_CONTEXT, "no presentation context with an odd ID is proposed"),
    (negotiation.PROTOCOL_VERSION_NOT_SUPPORTED, "bit 0 of the protocol version is not set"),
    (
        negotiation.LOCAL_LIMIT_EXCEEDED,
        "too many associations, in total or for this AE title or address, all of which have sent something",
    ),
    (negotiation.TEMPORARY_CONGESTION, "free space is below `retention.low_water_bytes`, or the node is stopping"),
)

_SENDER_STATUSES = (
    (
        [0x0000, *sorted(statuses.WARNINGS - set(range(0xB000, 0xC000))), 0xB000],
        "and 0xBxxx: sent; warnings are recorded with the delivery",
    ),
    (
        [dimse.DUPLICATE_INSTANCE],
        "sent, if an earlier attempt to send the object was not answered; else parked",
    ),
    ([0xA700], "and 0xA7xx: tried again, with growing pauses"),
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
    yield f"Version {__version__}. In the order of PS3.2 Annex N; printed by `mediqa-node conformance`."
    yield from _overview()
    yield from _services()
    yield from _section("Configuration")
    yield "All keys are in `config/node.yaml`. Limits and their defaults:"
    yield ""
    yield from _limits()
    yield from _communication()
    yield from _security()
    yield from _section("Annexes")
    yield from _section("Storage SOP classes accepted", level=3)
    yield f"{len(contexts.storage_classes())} standard classes, and those under `receiver.private_sop_classes`. CT,"
    yield "MR and ophthalmic photography are scored. All others are stored, and parameters are read from radiation"
    yield "dose SR. A Key Object Selection titled 113001, 113037, 113038 or 113039 rejects images of the same patient"
    yield "and study, if it comes from their source or an authority."
    yield ""
    yield from _table(("name", "UID"), ((UID(uid).name, f"`{uid}`") for uid in contexts.storage_classes()))


def _overview() -> Iterator[str]:
    """Yield overview, introduction and implementation model."""
    yield from _section("Conformance statement overview")
    yield "The node receives images, scores their technical quality, and sends a Structured Report for each series."
    yield ""
    services = (
        ("Verification", "yes", "yes"),
        ("Storage of images and other composite objects", "yes", "companions of reports, off by default"),
        ("Storage of Structured Reports", "yes", "yes"),
        ("Query (Study Root, FIND)", "own reports and companions, off by default", "yes"),
        ("Retrieve (Study Root, MOVE)", "own reports and companions, off by default", "on command"),
        ("Query and Retrieve (Patient Root)", "own reports and companions, off by default", "no"),
        ("DICOMweb: STOW-RS and QIDO-RS", "no", "yes, to peers that are configured so"),
        ("Storage Commitment, Worklist, MPPS, Media Storage", "no", "no"),
    )
    yield from _table(("service", "SCP", "SCU"), services)
    yield from _section("Introduction")
    yield "For integrators of scanners and archives. Research use only, not for diagnosis. IHE AIR is not claimed."
    yield f"Implementation Class UID `{implementation.IMPLEMENTATION_CLASS_UID}`, Implementation Version Name"
    yield f"`{implementation.IMPLEMENTATION_VERSION_NAME}`."
    yield from _section("Implementation model")
    yield "One application entity (`node.ae_title`) accepts and initiates associations. A series that is complete is"
    yield "scored, and its report is delivered to the destinations of the first matching rule in `returns`, over an"
    yield "association of its own. Companions of a report (score maps) follow over a second association."


def _services() -> Iterator[str]:
    """Yield what the node does as SCP and as SCU, with all status codes."""
    yield from _section("Service and interoperability description")
    yield from _section("Verification and Storage SCP", level=3)
    yield "Storage level 2 (full): every element of a dataset is stored as received, byte for byte."
    yield ""
    yield from _table(("status", "meaning", "when"), ((f"0x{c:04X}", m, w) for c, m, w in _STATUSES))
    yield ""
    yield "A failed C-STORE response has Error Comment (0000,0902) and, if one element is the cause, Offending"
    yield "Element (0000,0901). The association continues."
    yield from _query_services()
    yield from _section("Verification, Query and Storage SCU", level=3)
    yield from _table(("SOP class", "UID", "when"), _proposed())
    yield ""
    yield "Of Comprehensive 3D SR, Comprehensive SR and Enhanced SR, the first that the destination accepts is sent"
    yield "(`peers.*.sr_sop_class` fixes one). Before each report, void ones too, the study is queried for by C-FIND;"
    yield "a different patient or accession number withholds the report; a study that holds nothing but this node's own"
    yield "series is ignored. A failed C-FIND holds the report for `delivery.identity_within_s`. A report that must not"
    yield "stand is taken back by a void report of its class, without measurements, or by a Key Object Selection that"
    yield "rejects the node's own objects; its companions by the latter. Companions are sent after the same query. A"
    yield "destination that does not accept their class, refuses them, or has not taken them at the third try within"
    yield "half an hour receives the report alone, which is recorded with the delivery."
    yield ""
    yield "`mediqa-node pull` asks at STUDY and SERIES level, and has one series after another moved to"
    yield "`node.ae_title`. A C-STORE whose Move Originator (0000,1030) is this node, or that comes from an archive"
    yield "which was asked for the series, is never reported. An archive may take"
    yield f"{retrieve.BETWEEN_S:g} s from one C-MOVE response to the next."
    yield ""
    rows = ((", ".join(f"0x{code:04X}" for code in codes), what) for codes, what in _SENDER_STATUSES)
    yield from _table(("status of the destination", "action"), rows)
    yield from _web_services()


def _query_services() -> Iterator[str]:
    """Yield what the node does as SCP of Query and Retrieve."""
    yield from _section("Query and Retrieve SCP", level=3)
    yield "With `receiver.query: true`, of the node's own reports and companions that stand: never of received"
    yield "images, of an earlier revision, of a series that is withheld or has changed, or of what was taken back."
    yield "Levels PATIENT (Patient Root), STUDY, SERIES and IMAGE; each unique key above the level must be one"
    yield "value: no relational queries. Matching: single value, list of UID, universal, wildcard, range of dates"
    yield "and times; names in any case. C-CANCEL ends a request with 0xFE00. C-MOVE sends to configured peers only,"
    yield "each object as built, and reports the sub-operations once a second or oftener."
    yield ""
    yield from _table(("key", "level"), ((key, level.value) for key, (level, _) in query_keys.KEYS.items()))
    yield ""
    limit = query.MAX_MATCHES
    rows = (
        ("0xFF00", "a match; sub-operations go on"),
        ("0xFF01", "a match; a key that was asked for is not kept, and empty"),
        ("0xA700", f"more than {limit:,} matches or objects, none of which is sent; the database failed; stopping"),
        (f"0x{query.UNABLE_TO_SEND:04X}", "nothing could be sent, or the courier does not run"),
        (f"0x{query.DESTINATION_UNKNOWN:04X}", "Move Destination (0000,0600) is the AE title of no configured peer"),
        ("0xA900", "no level of this model, or a unique key is open"),
        (f"0x{query.SOME_FAILED:04X}", "some objects were not sent: Failed SOP Instance UID List (0008,0058)"),
        ("0xC000", "the identifier cannot be read, or a key is too long"),
    )
    yield from _table(("status", "when"), rows)


def _web_services() -> Iterator[str]:
    """Yield what the node does as a user agent of DICOMweb."""
    yield from _section("DICOMweb user agent", level=3)
    yield "A peer with `peers.*.dicomweb` gets the same objects by STOW-RS (`POST /studies`, one instance in each"
    yield "request, as built) and is asked by QIDO-RS (`GET /studies`, `/studies/{study}/series`,"
    yield "`/studies/{study}/series/{series}/instances`) instead of C-FIND and C-ECHO. No class is negotiated:"
    yield "`sr_sop_class: auto` sends Comprehensive 3D SR. Redirects are not followed. Only JSON is read, of at most"
    yield f"{web_client.MAX_ANSWER_BYTES:,} bytes."
    yield ""
    rows = (
        ("200, 202, 409 with a Failure Reason (0008,1197)", "as the same status of a C-STORE, see above"),
        ("200, 202 with Referenced SOP Sequence (0008,1199)", "sent; a Warning Reason (0008,1196) is recorded"),
        ("200 without either", "sent"),
        (", ".join(map(str, sorted(dicomweb.TRANSIENT))), "tried again, not before Retry-After has passed"),
        ("202 without either, no answer, more than is read", "tried again, with growing pauses"),
        ("401, 403, 3xx and any other", "parked; `mediqa-node retry` sends it again"),
        ("a certificate that is not trusted", "parked"),
    )
    yield from _table(("answer to STOW-RS", "action"), rows)


def _communication() -> Iterator[str]:
    """Yield association policies and transfer syntaxes."""
    yield from _section("Network communication details")
    yield f"Largest PDU received: {pdu_stream.MAX_PDU_BYTES:,} bytes. No asynchronous operations, role selection or"
    yield "extended negotiation. As SCU, Explicit and Implicit VR Little Endian are proposed."
    yield from _section("Association rejection", level=3)
    yield from _table(("result, source, reason", "when"), ((", ".join(map(str, r[:3])), w) for r, w in _REJECTIONS))
    yield ""
    yield "At `receiver.max_associations`, a caller takes the place of the association that has been silent the"
    yield f"longest, at least {places.GRACE_S:g} s, and never sent a message. {places.ECHO_PLACES} further places are"
    yield "for callers that agree on nothing but Verification. Address and AE titles are judged before anything else."
    yield "Where too many connections wait for a request, the oldest one of the address with the most is closed for a"
    yield "new one; addresses that no rule covers are counted apart."
    yield from _section("Transfer syntaxes accepted", level=3)
    yield "For each Storage class those that the installed decoders decode, for Verification the two uncompressed"
    yield "ones. "
    yield from _table(("name", "UID"), ((UID(uid).name, f"`{uid}`") for uid in decodable_transfer_syntaxes()))


def _security() -> Iterator[str]:
    """Yield security profiles and de-identification."""
    yield from _section("Security")
    yield "TLS is not offered in this version. An association needs a rule in `receiver.allowed` for its calling AE"
    yield "title and address."
    yield from _section("De-identification on export", level=3)
    yield f"`mediqa-node export --payload dicom` writes Part 10 files in {native_pixels.TRANSFER_SYNTAX.name}, never"
    yield "to the network. Only attributes in `dicom/deidentify/allow_list.py` are kept, at any depth; of PS3.15"
    yield "table E.1-1 these are sex, and age as a decade. UIDs and Patient ID become keyed pseudonyms. Dates and"
    yield "times are removed; multi-frame objects that require them get dummy values. Burned-in text is not detected."
    yield ""
    yield from _table(("De-identification Method Code (0012,0064)", "meaning"), METHODS)


def _proposed() -> Iterator[tuple[str, str, str]]:
    """Yield the SOP classes that are proposed to peers, and when."""
    for uid in contexts.SR_SOP_CLASSES.values():
        yield UID(uid).name, f"`{uid}`", "report"
    for key, uid in COMPANION_CLASSES.items():
        yield UID(uid).name, f"`{uid}`", f"`companions.{key}: true`; off by default"
    yield UID(KEY_OBJECT_SELECTION).name, f"`{KEY_OBJECT_SELECTION}`", "`peers.*.retraction: note`, or companions"
    yield UID(sender.STUDY_ROOT_FIND).name, f"`{sender.STUDY_ROOT_FIND}`", "before each report; `mediqa-node pull`"
    yield UID(retrieve.STUDY_ROOT_MOVE).name, f"`{retrieve.STUDY_ROOT_MOVE}`", "`mediqa-node pull`"
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
    rows.append(
        (
            "silence on an open association after which a series is complete",
            f"{completion.IDLE_ON_OPEN_ASSOCIATION_S:g} s",
        )
    )
    yield from _table(("limit", "default"), rows)


def _section(title: str, level: int = 2) -> tuple[str, str, str]:
    return "", f"{'#' * level} {title}", ""


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    yield from ("| " + " | ".join(row) + " |" for row in rows)
