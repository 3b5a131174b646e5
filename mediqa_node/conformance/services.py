"""What the statement says about services other than Verification and Storage SCP."""

from collections.abc import Iterator

from mediqa_node.conformance.text import section, table
from mediqa_node.domain import query as query_keys
from mediqa_node.network import (
    dicomweb,
    dimse,
    web_client,
)
from mediqa_node.pipeline import commitment, query
from mediqa_node.pipeline.forward import probe


def query_services() -> Iterator[str]:
    """Yield what the node does as SCP of Query and Retrieve."""
    yield from section("Query and Retrieve SCP", level=3)
    yield "With `receiver.query: true`, of the node's own reports and companions that stand: never of received"
    yield "images, of an earlier revision, of a series that is withheld or has changed, or of what was taken back."
    yield "Levels PATIENT (Patient Root), STUDY, SERIES and IMAGE; each unique key above the level must be one"
    yield "value: no relational queries. Matching: single value, list of UID, universal, wildcard, range of dates"
    yield "and times; names in any case. C-CANCEL ends a request with 0xFE00. A Patient ID is that of its issuer."
    yield "C-MOVE takes no wildcards, sends to configured peers only, each object as built, and reports the"
    yield "sub-operations once a second or oftener."
    yield ""
    yield from table(("key", "level"), ((key, level.value) for key, (level, _) in query_keys.KEYS.items()))
    yield ""
    limit = query.MAX_MATCHES
    rows = (
        ("0xFF00", "a match; sub-operations go on"),
        ("0xFF01", "a match; a key that was asked for is not kept, and empty or left out"),
        (
            "0xA700",
            f"more than {limit:,} matches or objects, none of which is sent; matching takes too long, or another"
            " query does; the database failed; stopping",
        ),
        (f"0x{query.UNABLE_TO_SEND:04X}", "nothing could be sent, or the courier does not run"),
        (f"0x{query.DESTINATION_UNKNOWN:04X}", "Move Destination (0000,0600) is the AE title of no configured peer"),
        ("0xA900", "no level of this model, or a unique key is open, of C-MOVE also one with a wildcard"),
        (f"0x{query.SOME_FAILED:04X}", "some objects were not sent: Failed SOP Instance UID List (0008,0058)"),
        (
            "0xC000",
            f"the identifier cannot be read, has more than {query.MAX_KEYS} keys, or a key is longer than"
            f" {query.MAX_KEY} characters (a list of UIDs: {query.MAX_UIDS:,})",
        ),
    )
    yield from table(("status", "when"), rows)


def web_services() -> Iterator[str]:
    """Yield what the node does as a user agent of DICOMweb."""
    yield from section("DICOMweb user agent", level=3)
    yield "A peer with `peers.*.dicomweb` gets the same objects by STOW-RS (`POST /studies`, one instance in each"
    yield "request, as built) and is asked by QIDO-RS (`GET /studies`, `/studies/{study}/series`,"
    yield "`/studies/{study}/series/{series}/instances`) instead of C-FIND and C-ECHO. No class is negotiated:"
    yield "`sr_sop_class: auto` sends Comprehensive 3D SR. Redirects are not followed. Only JSON is read, of at most"
    yield f"{web_client.MAX_ANSWER_BYTES:,} bytes."
    yield ""
    rows = (
        ("200, 202, 409 with a Failure Reason (0008,1197)", "as the same status of a C-STORE, see above"),
        ("200, 202 with Referenced SOP Sequence (0008,1199)", "sent; a Warning Reason (0008,1196) is recorded"),
        ("200 without either, empty or of a DICOM content type", "sent"),
        (", ".join(map(str, sorted(dicomweb.TRANSIENT))), "tried again, once Retry-After, at most an hour, has passed"),
        ("200 of another type, such as a sign-in page; 202 without either", "tried again, with growing pauses"),
        ("no answer, more than is read", "tried again, with growing pauses"),
        ("401, 403, 3xx and any other", "parked; `mediqa-node retry` sends it again"),
        ("a certificate that is not trusted", "parked"),
    )
    yield from table(("answer to STOW-RS", "action"), rows)


def storage_commitment() -> Iterator[str]:
    """Yield both sides of the Storage Commitment Push Model."""
    yield from section("Storage Commitment SCU and SCP", level=3)
    yield "SCU, with `peers.*.commitment: true`: N-ACTION for each report and its companions after they were sent,"
    yield f"at most {commitment.AT_MOST} instances a transaction, each under a fresh Transaction UID, on an"
    yield "association of its own. The N-EVENT-REPORT is taken on an association that the archive initiates under"
    yield "the AE title of the peer; it may propose the SCP role. Without an answer, the request is repeated after"
    yield "`delivery.commitment_within_s`. A failure sends the report again once, then parks it. An answer counts for"
    yield "the instances of its own transaction, under the classes that were asked about, and for nothing sent later."
    yield ""
    yield "SCP, with `receiver.commit_with`, as a proxy: the request is kept, then acknowledged; the named archive"
    yield "is asked about the same instances, and its results are reported by N-EVENT-REPORT, with the caller's"
    yield "Transaction UID and every instance, on a new association to the configured address of the caller, with"
    yield "the SCP role proposed. A Transaction UID that the same caller repeats with the same instances is the same"
    yield "transaction; with other instances it is refused. What the"
    yield "archive has not answered within `receiver.commitment_deadline_s` fails with reason 0x0110. Storage Media"
    yield "File-Set elements are not supported."
    yield ""
    rows = (
        (dimse.SUCCESS, "N-ACTION, N-EVENT-REPORT", "kept: survives the loss of power"),
        (dimse.NO_SUCH_INSTANCE, "N-ACTION, N-EVENT-REPORT", "not the well-known SOP Instance"),
        (dimse.INVALID_ARGUMENT, "N-ACTION", "malformed UID, or one instance with two classes"),
        (dimse.INVALID_ARGUMENT, "N-EVENT-REPORT", "no such transaction was begun with this AE title"),
        (dimse.INVALID_ARGUMENT, "N-EVENT-REPORT", "an unreadable item, or failures that contradict the event type"),
        (dimse.NO_SUCH_EVENT_TYPE, "N-EVENT-REPORT", "Event Type ID is neither 1 nor 2"),
        (dimse.MISSING_ATTRIBUTE, "N-ACTION, N-EVENT-REPORT", "no Transaction UID, or no instance"),
        (dimse.NO_SUCH_ACTION, "N-ACTION", "Action Type ID is not 1"),
        (dimse.DUPLICATE_TRANSACTION, "N-ACTION", "the Transaction UID was used for other instances"),
        (dimse.NOT_AUTHORIZED, "N-ACTION, N-EVENT-REPORT", "the calling AE title is no configured peer"),
        (
            dimse.RESOURCE_LIMITATION,
            "N-ACTION, N-EVENT-REPORT",
            "database refused, request too large, or too many open",
        ),
    )
    yield from table(("status", "of", "when"), ((f"0x{code:04X}", what, when) for code, what, when in rows))


def procedure_steps() -> Iterator[str]:
    """Yield the Modality Performed Procedure Step SCP."""
    yield from section("Modality Performed Procedure Step SCP", level=3)
    yield "With `receiver.mpps: true`: N-CREATE and N-SET. Performed Procedure Step Status and the instances of"
    yield "Performed Series Sequence are kept; other attributes are accepted and not kept. A list counts if the AE"
    yield "title that created the step has also sent images of the series. An N-SET replaces the attributes that it"
    yield "has. N-GET and the Retrieve and Notification classes are not supported."
    yield ""
    rows = (
        (dimse.SUCCESS, "N-CREATE, N-SET", "kept"),
        (dimse.INVALID_VALUE, "N-CREATE, N-SET", "a status out of turn: a new step is IN PROGRESS"),
        (dimse.PROCESSING_FAILURE, "N-SET", "the step has ended: Error ID (0000,0903) 0xA710"),
        (dimse.DUPLICATE_INSTANCE, "N-CREATE", "there is a step of this UID"),
        (dimse.NO_SUCH_INSTANCE, "N-SET", "there is none"),
        (dimse.INVALID_ARGUMENT, "N-CREATE", "malformed UID"),
        (dimse.MISSING_ATTRIBUTE, "N-CREATE", "no status"),
        (dimse.NOT_AUTHORIZED, "N-CREATE, N-SET", "`store: false`, or another AE title has created the step"),
        (dimse.RESOURCE_LIMITATION, "N-CREATE, N-SET", "database refused, dataset too large, or too many steps open"),
    )
    yield from table(("status", "of", "when"), ((f"0x{code:04X}", what, when) for code, what, when in rows))


def forwarding() -> Iterator[str]:
    """Yield what the node does as Storage SCU of received instances."""
    yield from section("Forwarding of received instances", level=3)
    yield "With rules under `forward`, off by default: received instances are sent to configured peers, the dataset"
    yield "byte for byte as received, one presentation context for each pair of SOP class and transfer syntax, in order"
    yield "of arrival within a series. A sender with such a rule is offered the classes and syntaxes that all of its"
    yield "destinations accept, as they answer when asked at least every"
    yield f"{probe.PROBE_EVERY_S / 3600:g} hours. What a destination sends, what was moved (Move Originator) or pulled,"
    yield "and the node's own objects are forwarded nowhere. With `peers.*.forward.decompress: true`, grey images of"
    yield "lossless compression are sent in Explicit VR Little Endian under the same UID where the peer does not accept"
    yield "their syntax. With `peers.*.commitment: true` the peer is asked to commit to them. No instance is deleted"
    yield "before each destination has it."
    yield ""
    rows = (
        ("0x0000, 0xBxxx and other warnings", "sent; a warning is recorded"),
        ("0x0111", "sent, as it is there; a corrected copy is parked"),
        ("0xA7xx, no answer, a transient rejection", "tried again, with growing pauses, as long as it takes"),
        ("0xA9xx, 0xCxxx, 0x0122, 0x0124 and other failures", "this instance is parked: `mediqa-node forward list`"),
    )
    yield from table(("status of the destination", "action"), rows)
