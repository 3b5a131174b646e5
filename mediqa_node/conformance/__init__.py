"""The DICOM conformance statement (PS3.2 Annex N), generated from the code.

`mediqa-node conformance > mediqa_node/CONFORMANCE.md`; a test compares the two.
"""

from collections.abc import Iterator
from dataclasses import MISSING, fields

from pydicom.uid import UID

from mediqa_node import __version__
from mediqa_node.conformance import services as described
from mediqa_node.conformance.text import section, table
from mediqa_node.decode.syntaxes import decodable_transfer_syntaxes
from mediqa_node.dicom.companions.request import COMPANION_CLASSES
from mediqa_node.dicom.deidentify import native_pixels
from mediqa_node.dicom.deidentify.instance import METHODS
from mediqa_node.dicom.reject_note import KEY_OBJECT_SELECTION
from mediqa_node.domain import implementation
from mediqa_node.domain.policy import CompletionRules, DeliveryRules, ReceiverPolicy, Retention
from mediqa_node.domain.tls import DEFAULT_PORT
from mediqa_node.network import (
    contexts,
    dimse,
    listeners,
    negotiation,
    pdu_stream,
    peer_link,
    places,
    retrieve,
    services,
    statuses,
    tls,
)
from mediqa_node.pipeline import completion

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
    (negotiation.CALLED_AE_NOT_RECOGNISED, "the called AE title is none of `node.ae_title` and `node.ae_titles`"),
    (
        negotiation.CALLING_AE_NOT_RECOGNISED,
        "no rule in `receiver.allowed` matches calling AE title, address and certificate",
    ),
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
    yield from section("Configuration")
    yield "All keys are in `config/node.yaml`. Limits and their defaults:"
    yield ""
    yield from _limits()
    yield from _communication()
    yield from _security()
    yield from section("Annexes")
    yield from section("Storage SOP classes accepted", level=3)
    yield f"{len(contexts.storage_classes())} standard classes, and those under `receiver.private_sop_classes`. CT,"
    yield "MR and ophthalmic photography are scored. All others are stored, and parameters are read from radiation"
    yield "dose SR. A Key Object Selection titled 113001, 113037, 113038 or 113039 rejects images of the same patient"
    yield "and study, if it comes from their source or an authority."
    yield ""
    yield from table(("name", "UID"), ((UID(uid).name, f"`{uid}`") for uid in contexts.storage_classes()))


def _overview() -> Iterator[str]:
    """Yield overview, introduction and implementation model."""
    yield from section("Conformance statement overview")
    yield "The node receives images, scores their technical quality, and sends a Structured Report for each series."
    yield ""
    services = (
        ("Verification", "yes", "yes"),
        ("Storage of images and other composite objects", "yes", "companions; forwarding; both off by default"),
        ("Storage of Structured Reports", "yes", "yes"),
        ("Query (Study Root, FIND)", "own reports and companions, off by default", "yes"),
        ("Retrieve (Study Root, MOVE)", "own reports and companions, off by default", "on command"),
        ("Query and Retrieve (Patient Root)", "own reports and companions, off by default", "no"),
        (
            "Storage Commitment (Push Model)",
            "proxy of an archive, off by default",
            "for what was sent, off by default",
        ),
        ("Modality Performed Procedure Step", "off by default", "no"),
        ("DICOMweb: STOW-RS and QIDO-RS", "no", "yes, to peers that are configured so"),
        ("Worklist, Media Storage", "no", "no"),
    )
    yield from table(("service", "SCP", "SCU"), services)
    yield from section("Introduction")
    yield "For integrators of scanners and archives. Research use only, not for diagnosis. IHE AIR is not claimed."
    yield f"Implementation Class UID `{implementation.IMPLEMENTATION_CLASS_UID}`, Implementation Version Name"
    yield f"`{implementation.IMPLEMENTATION_VERSION_NAME}`."
    yield from section("Implementation model")
    yield "One application entity (`node.ae_title`, and when called also `node.ae_titles`) accepts and initiates"
    yield "associations. A series that is complete is scored, and its report is delivered to the destinations of the"
    yield "first matching rule in `returns`, over an association of its own. Companions of a report (score maps) follow"
    yield "over a second association."


def _services() -> Iterator[str]:
    """Yield what the node does as SCP and as SCU, with all status codes."""
    yield from section("Service and interoperability description")
    yield from section("Verification and Storage SCP", level=3)
    yield "Storage level 2 (full): every element of a dataset is stored as received, byte for byte."
    yield ""
    yield from table(("status", "meaning", "when"), ((f"0x{c:04X}", m, w) for c, m, w in _STATUSES))
    yield ""
    yield "A failed response has Error Comment (0000,0902) and, if one element is the cause, Offending Element"
    yield "(0000,0901). The association continues. A command that is not served is answered with"
    yield f"0x{dimse.UNRECOGNISED_OPERATION:04X}; datasets of other services than Storage may have"
    yield f"{services.MAX_DATASET_BYTES:,} bytes. A caller with `store: false` may verify, and answer"
    yield "requests of this node; anything else is answered with 0x0124."
    yield from described.query_services()
    yield from described.storage_commitment()
    yield from described.procedure_steps()
    yield from section("Verification, Query and Storage SCU", level=3)
    yield from table(("SOP class", "UID", "when"), _proposed())
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
    yield from table(("status of the destination", "action"), rows)
    yield from described.web_services()
    yield from described.forwarding()


def _communication() -> Iterator[str]:
    """Yield association policies and transfer syntaxes."""
    yield from section("Network communication details")
    yield f"Largest PDU received: {pdu_stream.MAX_PDU_BYTES:,} bytes. No asynchronous operations or extended"
    yield "negotiation. SCP/SCU Role Selection: a caller may be the SCP of Storage Commitment; the node proposes"
    yield "that role to report commitment. As SCU, Explicit and Implicit VR Little Endian are proposed."
    yield from section("Association rejection", level=3)
    yield from table(("result, source, reason", "when"), ((", ".join(map(str, r[:3])), w) for r, w in _REJECTIONS))
    yield ""
    yield "At `receiver.max_associations`, a caller takes the place of the association that has been silent the"
    yield f"longest, at least {places.GRACE_S:g} s, and never sent a message. {places.ECHO_PLACES} further places are"
    yield "for callers that agree on nothing but Verification. Address and AE titles are judged before anything else."
    yield "Where too many connections wait for a request, the oldest one of the address with the most is closed for a"
    yield "new one; addresses that no rule covers are counted apart."
    yield from section("Transfer syntaxes accepted", level=3)
    yield "For each Storage class those that the installed decoders decode; for Verification, Storage Commitment and"
    yield "Procedure Steps Implicit and Explicit VR Little Endian. "
    yield from table(("name", "UID"), ((UID(uid).name, f"`{uid}`") for uid in decodable_transfer_syntaxes()))


def _security() -> Iterator[str]:
    """Yield security profiles and de-identification."""
    yield from section("Security")
    yield "An association needs a rule in `receiver.allowed` for its calling AE title and address; a rule may demand"
    yield "TLS or a certificate. With `receiver.tls` and `peers.*.tls`, both off by default, associations are accepted"
    yield "and initiated by the BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile (PS3.15 B.12):"
    yield ""
    yield from table(("TLS", "supported"), _tls())
    yield ""
    yield "As SCP, certificates of callers are optional and verified against `receiver.tls.ca` and `receiver.tls.crl`."
    yield "As SCU, the peer's is verified against `peers.*.tls.ca`, or is the one with `peers.*.tls.fingerprint`. From"
    yield "the addresses in `receiver.proxies`, connections begin with a PROXY protocol header of version 2."
    yield from section("De-identification on export", level=3)
    yield f"`mediqa-node export --payload dicom` writes Part 10 files in {native_pixels.TRANSFER_SYNTAX.name}, never"
    yield "to the network. Only attributes in `dicom/deidentify/allow_list.py` are kept, at any depth; of PS3.15"
    yield "table E.1-1 these are sex, and age as a decade. UIDs and Patient ID become keyed pseudonyms. Dates and"
    yield "times are removed; multi-frame objects that require them get dummy values. Burned-in text is not detected."
    yield ""
    yield from table(("De-identification Method Code (0012,0064)", "meaning"), METHODS)


def _tls() -> Iterator[tuple[str, str]]:
    """Yield versions, cipher suites and port of TLS."""
    yield "versions", "1.2, 1.3"
    yield "cipher suites of TLS 1.2", ", ".join(f"`{suite}`" for suite in tls.CIPHER_SUITES)
    yield "cipher suites of TLS 1.3", ", ".join(f"`{suite}`" for suite in tls.TLS_1_3_SUITES)
    yield "port", f"{DEFAULT_PORT}, configurable"
    yield "session resumption", f"TLS 1.2 only, within {tls.LOOK_EVERY_S:g} seconds, while the certificate holds"
    yield "renegotiation, compression", "no"


def _proposed() -> Iterator[tuple[str, str, str]]:
    """Yield the SOP classes that are proposed to peers, and when."""
    for uid in contexts.SR_SOP_CLASSES.values():
        yield UID(uid).name, f"`{uid}`", "report"
    for key, uid in COMPANION_CLASSES.items():
        yield UID(uid).name, f"`{uid}`", f"`companions.{key}: true`; off by default"
    yield UID(KEY_OBJECT_SELECTION).name, f"`{KEY_OBJECT_SELECTION}`", "`peers.*.retraction: note`, or companions"
    uid = contexts.STORAGE_COMMITMENT
    yield UID(uid).name, f"`{uid}`", "`peers.*.commitment: true`, `receiver.commit_with`"
    yield (
        UID(peer_link.STUDY_ROOT_FIND).name,
        f"`{peer_link.STUDY_ROOT_FIND}`",
        "before each report; `mediqa-node pull`",
    )
    yield UID(retrieve.STUDY_ROOT_MOVE).name, f"`{retrieve.STUDY_ROOT_MOVE}`", "`mediqa-node pull`"
    yield UID(contexts.VERIFICATION).name, f"`{contexts.VERIFICATION}`", "`mediqa-node echo`"


def _limits() -> Iterator[str]:
    rows: list[tuple[str, str]] = []
    for name, kind in (
        ("receiver", ReceiverPolicy),
        ("completion", CompletionRules),
        ("delivery", DeliveryRules),
        ("retention", Retention),
    ):
        rows += [
            (
                f"`{name}.{field.name}`",
                _default(field.default),
            )
            for field in fields(kind)
            if field.default is not MISSING and not isinstance(field.default, tuple | None)
        ]
    rows.append(("backlog of the listening socket", str(listeners.BACKLOG)))
    rows.append(
        (
            "silence on an open association after which a series is complete",
            f"{completion.IDLE_ON_OPEN_ASSOCIATION_S:g} s",
        )
    )
    yield from table(("limit", "default"), rows)


def _default(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int | float) else str(value)
