"""A peer that speaks DICOMweb: reports by STOW-RS, questions by QIDO-RS (PS3.18 sections 10.5 and 10.6).

What an association answers with a DIMSE status, a server answers with an HTTP status and a reason per instance: the
numbers of both are the same, and so is what follows from them.
"""

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode

from mediqa_node.domain.errors import PeerRefused, PeerUnavailable, QueryUnanswered
from mediqa_node.domain.identity import Identity
from mediqa_node.domain.peer import DicomWeb, Peer
from mediqa_node.network.contexts import SR_SOP_CLASSES
from mediqa_node.network.statuses import check_stored
from mediqa_node.network.web_client import Answer, WebClient

_JSON = "application/dicom+json"
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_PATIENT_ID, _ISSUER, _ACCESSION_NUMBER = "00100020", "00100021", "00080050"
_FAILED, _OTHER_FAILURES, _REFERENCED = "00081198", "0008119A", "00081199"
_FAILURE_REASON, _WARNING_REASON = "00081197", "00081196"

_NO_QUERIES = (404, 405, 501)
"""What a server answers that offers no QIDO-RS under its base URL."""
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that may pass."""

_NO_ACCESS = (401, 403, 407)
_MAX_WAIT_S = 3_600.0


class StowLink:
    """A peer that is asked and sent to by DICOMweb. Nothing is sent before the first call."""

    def __init__(self, client: WebClient, peer: Peer) -> None:
        self._client = client
        self.peer = peer

    @property
    def sr_sop_class(self) -> str | None:
        """The SR class to send: nothing is negotiated, so `auto` is the richest."""
        wanted = "comprehensive3d" if self.peer.sr_sop_class == "auto" else self.peer.sr_sop_class
        return SR_SOP_CLASSES[wanted]

    def accepts(self, sop_class_uid: str) -> bool:
        """Return True: what a server does not accept, it refuses when it is sent (0x0122)."""
        return bool(sop_class_uid)

    def verify(self) -> None:
        """Ask for one study, as any client may.

        Raises:
            PeerUnavailable: no answer.
            PeerRefused: it is no DICOMweb server, or the token or certificate is not good for it.
        """
        answer = self._get("/studies", [("limit", "1")])
        if answer.status not in (200, 204, 206):
            raise self._failure(answer, "QIDO-RS", PeerUnavailable)
        self._items(answer)

    def find_study(self, study_instance_uid: str) -> list[Identity] | None:
        """Return patient ID, issuer and accession number of a study at the peer, which may hold it several times.

        Returns:
            [] if the study is absent; None if the peer answers no QIDO-RS.

        Raises:
            QueryUnanswered: no answer came in time, it cannot be read, or the query failed.
            PeerRefused: the peer lets this node ask nothing.
        """
        fields = [("includefield", tag) for tag in (_PATIENT_ID, _ISSUER, _ACCESSION_NUMBER)]
        found = self._found("/studies", [("StudyInstanceUID", study_instance_uid), *fields])
        if found is None:
            return None
        studies = [self._readable(_study_identity, study) for study in found]
        return [study for study in studies if study.study_instance_uid == study_instance_uid]

    def find_series(self, study_instance_uid: str, patient_id: str) -> list[str]:
        """Return the series of a study that the peer holds under a Patient ID; [] if it does not serve such queries.

        A peer that leaves the Patient ID out of its answers is taken to mean every series of the study.

        Raises:
            QueryUnanswered: no answer came in time, it cannot be read or is not whole, or the query failed.
            PeerRefused: the peer lets this node ask nothing.
        """
        found = self._found(f"/studies/{quote(study_instance_uid, safe='')}/series", [("includefield", _PATIENT_ID)])
        return [
            self._readable(_uid, series, _SERIES)
            for series in found or []
            if self._readable(_text, series, _PATIENT_ID) in ("", patient_id)
        ]

    def has_instance(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> bool | None:
        """Return whether the peer finds an instance; None if it answers no QIDO-RS."""
        study, series = quote(study_instance_uid, safe=""), quote(series_instance_uid, safe="")
        found = self._found(f"/studies/{study}/series/{series}/instances", [("SOPInstanceUID", sop_instance_uid)])
        if found is None:  # a server may call a study, or a series, that it does not have a page that it does not have
            return None if self.find_study(study_instance_uid) is None else False
        return any(self._readable(_uid, instance, _INSTANCE) == sop_instance_uid for instance in found)

    def store(self, part10: bytes, *, was_sent: bool = False, moved_for: tuple[str, int] | None = None) -> int:
        """Send one object, to the byte as it is, and return the status if the peer has stored it.

        Args:
            was_sent: these bytes were sent before, and no answer came: the peer may call them a duplicate.
            moved_for: has no place in STOW-RS.

        Raises:
            PeerUnavailable: no answer, one that may pass, or out of resources (0xA7xx).
            PeerRefused: any other failure.
        """
        content_type, body = _multipart(part10)
        answer = self._client.request("POST", "/studies", accept=_JSON, content_type=content_type, body=body)
        if answer.status not in (200, 202, 409):
            raise self._failure(answer, "STOW-RS", PeerUnavailable)
        failure, warning, is_named = _outcome(answer)
        if failure is not None:
            return check_stored(failure, self.peer.name, was_sent=was_sent)
        if answer.status == 409:
            raise PeerRefused(f"{self.peer.name} refused the object (HTTP 409, without a reason)")
        if not is_named and (answer.status == 202 or not _is_of_stow(answer)):
            raise PeerUnavailable(
                f"{self.peer.name} does not say whether it has stored the object (HTTP {answer.status}, "
                f"{len(answer.body)} bytes); a proxy or a sign-in page may have answered in its place"
            )
        return warning

    def _get(self, path: str, query: list[tuple[str, str]]) -> Answer:
        return self._client.request("GET", f"{path}?{urlencode(query)}", accept=_JSON)

    def _found(self, path: str, query: list[tuple[str, str]]) -> list[dict[str, Any]] | None:
        """Send a QIDO-RS query; return every match, or None if such queries are not served."""
        try:
            answer = self._get(path, query)
        except PeerUnavailable as error:
            raise QueryUnanswered(str(error)) from error
        if answer.status in _NO_QUERIES:
            return None
        if answer.status == 206 or "results exceeded" in answer.headers.get("warning", ""):
            raise QueryUnanswered(f"{self.peer.name} answered QIDO-RS with a part of what it found")
        if answer.status not in (200, 204):
            raise self._failure(answer, "QIDO-RS", QueryUnanswered)
        return self._items(answer)

    def _items(self, answer: Answer) -> list[dict[str, Any]]:
        if answer.status == 204 or not answer.body:
            return []
        found = _json(answer.body)
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise QueryUnanswered(f"{self.peer.name} answered QIDO-RS with something else than DICOM JSON")
        return found

    def _readable(self, read: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return read(*arguments)
        except ValueError as error:
            raise QueryUnanswered(f"{self.peer.name} answered QIDO-RS with {error}") from error

    def _failure(self, answer: Answer, what: str, transient: type[PeerUnavailable]) -> PeerUnavailable | PeerRefused:
        """Return the error for an HTTP status: it may pass, or a person has to act."""
        answered = f"{self.peer.name} answered {what} with HTTP {answer.status}"
        if answer.status in TRANSIENT:
            return transient(answered, again_after_s=_retry_after_s(answer))
        if answer.status in _NO_ACCESS:
            return PeerRefused(f"{answered}: this node is not admitted; check `dicomweb.token_file` and `certificate`")
        if 300 <= answer.status < 400:
            return PeerRefused(f"{answered}: redirects are not followed; set `dicomweb.url` to the final address")
        return PeerRefused(answered)


@contextmanager
def connect(peer: Peer, access: DicomWeb, *, timeout_s: float) -> Iterator[StowLink]:
    """Return a link to a DICOMweb server; each request has a connection of its own."""
    yield StowLink(WebClient(peer, access, timeout_s), peer)


def _multipart(part10: bytes) -> tuple[str, bytes]:
    """Return Content-Type and body that carry one object unchanged (PS3.18 section 8.6.1.2)."""
    boundary = uuid.uuid4().hex
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    content_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return content_type, head + part10 + f"\r\n--{boundary}--\r\n".encode()


def _is_of_stow(answer: Answer) -> bool:
    """Return whether an answer is one of STOW-RS, which may be empty, and no page of a proxy or for signing in."""
    kind = answer.headers.get("content-type", "").lower()
    is_json = _JSON in kind and isinstance(_json(answer.body), dict | list)
    return not answer.body.strip() or "application/dicom+xml" in kind or is_json


def _outcome(answer: Answer) -> tuple[int | None, int, bool]:
    """Return failure reason, warning reason (0x0000: none), and whether the answer says anything of the object.

    Some servers answer 200 to a request of which they have stored nothing.
    """
    found = _json(answer.body)
    if isinstance(found, list):  # one that wraps its answer
        found = found[0] if found else None
    if not isinstance(found, dict):  # one that answers in XML whatever it is asked for
        return (0x0110, 0x0000, True) if _FAILED.encode() in answer.body else (None, 0x0000, False)
    failed = [*_sequence(found, _FAILED), *_sequence(found, _OTHER_FAILURES)]
    stored = _sequence(found, _REFERENCED)
    if failed:
        return _number(failed[0], _FAILURE_REASON, default=0x0110) or 0x0110, 0x0000, True
    return None, _number(stored[0], _WARNING_REASON, default=0x0000) if stored else 0x0000, bool(stored)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _values(item: dict[str, Any], tag: str) -> list[Any]:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _sequence(item: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    return [value for value in _values(item, tag) if isinstance(value, dict)]


def _number(item: dict[str, Any], tag: str, *, default: int) -> int:
    value = next(iter(_values(item, tag)), None)
    if isinstance(value, str) and re.fullmatch(r"\d{1,5}", value):
        return int(value)
    return value if isinstance(value, int) and 0 <= value <= 0xFFFF else default


def _text(item: dict[str, Any], tag: str) -> str:
    """Return a text as the header of an image gives it: several values are one text.

    Raises:
        ValueError: it is something else than text.
    """
    values = _values(item, tag)
    if not all(value is None or isinstance(value, str) for value in values):
        raise ValueError(f"({tag[:4]},{tag[4:]}) that is no text")
    return "\\".join(stripped for value in values if (stripped := (value or "").replace("\0", " ").strip()))


def _uid(item: dict[str, Any], tag: str) -> str:
    uid = _text(item, tag)
    if not uid:
        raise ValueError(f"no ({tag[:4]},{tag[4:]})")
    return uid


def _study_identity(study: dict[str, Any]) -> Identity:
    return Identity(
        patient_id=_text(study, _PATIENT_ID),
        issuer=_text(study, _ISSUER),
        accession_number=_text(study, _ACCESSION_NUMBER),
        study_instance_uid=_uid(study, _STUDY),
    )


def _retry_after_s(answer: Answer) -> float:
    """Return the seconds of a Retry-After header (RFC 9110 10.2.3), an hour at most; 0 for nonsense."""
    value = answer.headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", value):
        return min(float(value), _MAX_WAIT_S)
    try:
        left_s = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(left_s, 0.0), _MAX_WAIT_S)
