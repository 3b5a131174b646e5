"""C-FIND and C-MOVE over the node's own reports and companions (PS3.4 annex C), on the receiver.

The received images are not found: this node is no archive. C-MOVE sends to configured peers only; the courier does it,
and the receiver reports how far it is.
"""

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from threading import Semaphore

import pydicom
import structlog
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.tag import BaseTag

from mediqa_node.dicom.values import text
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.query import (
    IDENTIFIED_BY,
    KEYS,
    UNIQUE_KEYS,
    Level,
    MoveState,
    OwnObject,
    described,
    grouped,
    selected,
)
from mediqa_node.network import dimse
from mediqa_node.network.services import Answer, ServiceRefused, ServiceRequest, Services, sub_operations
from mediqa_node.storage import own_objects
from mediqa_node.storage.database import Database
from mediqa_node.storage.own_objects import MoveRow

log = structlog.get_logger("receiver")

PATIENT_ROOT_FIND, PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.1.2"
STUDY_ROOT_FIND, STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2"

MAX_MATCHES = 1000
"""Answers to one C-FIND, and objects of one C-MOVE. Beyond, the request is refused (0xA700) before any is given."""
MAX_KEYS = 200
MAX_KEY, MAX_UIDS = 64, 256 * 64
"""Characters of a key: longer ones are no honest question. UIDs may be a list."""
_MATCHING = Semaphore(1)
"""Matching takes the processor from the receipt of images: one query at a time."""
_TURN_WITHIN_S, _MATCH_WITHIN_S = 10.0, 30.0
_OBJECTS_BETWEEN_LOOKS = 256

UNABLE_TO_SEND = 0xA702
DESTINATION_UNKNOWN = 0xA801
SOME_FAILED = 0xB000
_KEYS_NOT_SUPPORTED = 0xFF01
_SENT_AS_IS = ("QueryRetrieveLevel", "SpecificCharacterSet", "RetrieveAETitle", "TimezoneOffsetFromUTC")
_CONTENT_SEQUENCE = 0x0040A730

_LOOK_EVERY_S = 0.2
_REPORT_EVERY_S = 1.0
PATIENCE_S = 120.0
"""How long the courier may take over one object before the request is given up."""


def describe(part10: bytes) -> Mapping[str, str]:
    """Return what a report or companion can be queried by; nothing of one that cannot be read, which nobody finds."""

    def is_behind(tag: BaseTag, vr: str | None, length: int) -> bool:
        return int(tag) >= _CONTENT_SEQUENCE

    try:
        header = pydicom.filereader.read_partial(BytesIO(part10), stop_when=is_behind)
    except Exception:  # pydicom may raise anything; one object must not keep the others from being found
        log.exception("own object not readable", hourly_for="own object")
        return {}
    return {key: value for key in KEYS if (value := text(header, key))}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryServices:
    """Answers queries about the node's own objects.

    Attributes:
        ae_title: of this node, where everything can be retrieved.
        peers: the only destinations of C-MOVE.
    """

    database: Database
    ae_title: str
    peers: Sequence[Peer]
    clock: Callable[[], float] = time.time

    def list_objects(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """List reports and companions that are not listed yet, so that they are found."""
        own_objects.list_missing(self.database, describe, stopping)

    def services(self) -> Services:
        """Return the services by abstract syntax and Command Field."""
        return {
            (PATIENT_ROOT_FIND, dimse.C_FIND_RQ): self.find,
            (STUDY_ROOT_FIND, dimse.C_FIND_RQ): self.find,
            (PATIENT_ROOT_MOVE, dimse.C_MOVE_RQ): self.move,
            (STUDY_ROOT_MOVE, dimse.C_MOVE_RQ): self.move,
        }

    def find(self, request: ServiceRequest) -> Iterator[Answer]:
        """Answer C-FIND (PS3.4 section C.4.1): an answer for each patient, study, series or object that matches."""
        with request.dataset() as identifier:
            level, wanted, keys = _level(request, identifier), _wanted(identifier), _asked_for(identifier)
        _check_keys_above(request, level, wanted)
        groups = grouped(self._in_turn(request, wanted, level), level)
        if len(groups) > MAX_MATCHES:
            raise ServiceRefused(dimse.OUT_OF_RESOURCES, f"more than {MAX_MATCHES} matches: ask for less")
        for group in groups:
            answer, is_whole = self._answer(keys, level, group)
            yield Answer(status=dimse.PENDING[0] if is_whole else _KEYS_NOT_SUPPORTED, dataset=answer)
        yield Answer()

    def _in_turn(self, request: ServiceRequest, wanted: Mapping[str, str], level: Level) -> list[OwnObject]:
        """Return the objects of the entities that match, once no other query is being matched.

        Raises:
            ServiceRefused: they are of too many studies, it takes too long, or nobody waits for them any more.
        """
        began = time.monotonic()
        while not _MATCHING.acquire(timeout=_LOOK_EVERY_S):
            if time.monotonic() - began > _TURN_WITHIN_S:
                raise ServiceRefused(dimse.OUT_OF_RESOURCES, "another query takes long: ask again")
            _check_wanted(request)
        try:
            return self._selected(wanted, level, lambda objects: _watched(objects, request))
        finally:
            _MATCHING.release()

    def _selected(
        self, wanted: Mapping[str, str], level: Level, watched: Callable[[Iterator[OwnObject]], Iterator[OwnObject]]
    ) -> list[OwnObject]:
        """Return the objects of the entities that match; of a node with very many, few are in memory at once."""
        self.list_objects()
        named, modalities = _listed(wanted, UNIQUE_KEYS[Level.STUDY]), _listed(wanted, "ModalitiesInStudy")
        with self.database.read() as connection:
            studies = set[str]()
            for one in selected(watched(own_objects.standing(connection, named)), wanted, level):
                if not modalities or one["Modality"] in modalities:
                    studies.add(one["StudyInstanceUID"])
                if len(studies) > MAX_MATCHES:
                    raise ServiceRefused(dimse.OUT_OF_RESOURCES, f"more than {MAX_MATCHES} studies: ask for less")
            if not studies:
                return []
            return list(selected(watched(own_objects.standing(connection, sorted(studies))), wanted, level))

    def _answer(self, keys: Collection[str], level: Level, group: Sequence[OwnObject]) -> tuple[Dataset, bool]:
        """Return the identifier of an answer, and whether it has every key that was asked for."""
        known, answer = described(group, level), Dataset()
        for key in sorted({*keys, UNIQUE_KEYS[level]}):
            if (value := known.get(key, "")) != "":
                setattr(answer, key, value)
            elif len(vr := dictionary_VR(key)) == 2:  # others depend on what is in the dataset: `US or SS`
                setattr(answer, key, [] if vr == "SQ" else None)
        answer.QueryRetrieveLevel, answer.RetrieveAETitle = level.value, self.ae_title
        if any(isinstance(value, str) and not value.isascii() for value in known.values()):
            answer.SpecificCharacterSet = "ISO_IR 192"
        return answer, set(keys) <= known.keys()

    def move(self, request: ServiceRequest) -> Iterator[Answer]:
        """Answer C-MOVE (PS3.4 section C.4.2): have the courier send what is asked for, and report how far it is."""
        peer = self._destination(request)
        with request.dataset() as identifier:
            level, wanted = _level(request, identifier), _wanted(identifier)
        _check_keys_above(request, level, wanted)
        keys = {key: wanted[key] for each in Level for key in IDENTIFIED_BY[each] if key in wanted}
        if not keys.get(UNIQUE_KEYS[level]) or any(letter in value for value in keys.values() for letter in "*?"):
            raise ServiceRefused(dimse.DOES_NOT_MATCH, f"{UNIQUE_KEYS[level]} has to name what is to be sent")
        uids = [one["SOPInstanceUID"] for one in self._in_turn(request, keys, level)]
        if len(uids) > MAX_MATCHES:
            raise ServiceRefused(dimse.OUT_OF_RESOURCES, f"more than {MAX_MATCHES} objects: ask for less")
        if not uids:
            yield Answer(more=sub_operations(completed=0, failed=0, warning=0))
            return
        with self.database.write() as connection:
            number = own_objects.add_move(
                connection,
                calling_ae_title=request.caller.calling_ae_title,
                message_id=request.command.message_id,
                destination=peer.name,
                sop_instance_uids=uids,
                at=self.clock(),
            )
        try:
            yield from self._progress(number)
        finally:  # also when the caller has cancelled or gone
            with self.database.write() as connection:
                row = own_objects.find_move(connection, number)
                if row is not None and row.state is not MoveState.DONE:
                    own_objects.update_move(connection, number, state=MoveState.CANCELLED)

    def _destination(self, request: ServiceRequest) -> Peer:
        title = request.command.text(0x0600)
        found = next((peer for peer in self.peers if peer.ae_title == title and not peer.dicomweb), None)
        if found is None:
            raise ServiceRefused(DESTINATION_UNKNOWN, "Move Destination is no configured peer")
        return found

    def _progress(self, number: int) -> Iterator[Answer]:
        """Yield a pending answer with each change, and at least once a second so that a caller can cancel."""
        said, said_at, left = None, time.monotonic(), None
        changed_at = said_at
        while True:
            with self.database.read() as connection:
                row = own_objects.find_move(connection, number)
                before = own_objects.work_before(connection, number)
            now = time.monotonic()
            if row is not None and (row.remaining, before) != left:
                left, changed_at = (row.remaining, before), now
            if row is None or now - changed_at > PATIENCE_S:
                raise ServiceRefused(UNABLE_TO_SEND, "the courier does not send", more=_counters(row))
            if row.state is MoveState.DONE:
                yield _last(row)
                return
            if row.remaining != said or now - said_at >= _REPORT_EVERY_S:
                said, said_at = row.remaining, now
                yield Answer(status=dimse.PENDING[0], more=_counters(row, row.remaining))
            time.sleep(_LOOK_EVERY_S)


def _counters(row: MoveRow | None, remaining: int | None = None) -> Mapping[int, bytes]:
    if row is None:
        return {}
    return sub_operations(remaining=remaining, completed=row.completed, failed=len(row.failed), warning=row.warning)


def _last(row: MoveRow) -> Answer:
    """Return the last answer of a C-MOVE; what was not sent is named (0008,0058)."""
    if not row.failed:
        return Answer(more=_counters(row))
    status = SOME_FAILED if row.completed or row.warning else UNABLE_TO_SEND
    identifier = Dataset()
    identifier.FailedSOPInstanceUIDList = list(row.failed)
    return Answer(status=status, dataset=identifier, more=_counters(row))


def _level(request: ServiceRequest, identifier: Dataset) -> Level:
    stated = text(identifier, "QueryRetrieveLevel")
    levels = set(Level)
    if request.abstract_syntax in (STUDY_ROOT_FIND, STUDY_ROOT_MOVE):
        levels.discard(Level.PATIENT)
    if stated not in levels:
        raise ServiceRefused(dimse.DOES_NOT_MATCH, "Query/Retrieve Level is none of this model", offending=0x00080052)
    return Level(stated)


def _wanted(identifier: Dataset) -> dict[str, str]:
    """Return the keys with a value that can be matched; several `*` in a row are one."""
    if len(identifier) > MAX_KEYS:
        raise ServiceRefused(dimse.CANNOT_UNDERSTAND, f"more than {MAX_KEYS} keys")
    wanted = {key: text(identifier, key) for key in (*KEYS, "ModalitiesInStudy") if key in identifier}
    if any(len(value) > (MAX_UIDS if key.endswith("UID") else MAX_KEY) for key, value in wanted.items()):
        raise ServiceRefused(dimse.CANNOT_UNDERSTAND, "a key is too long")
    return {key: re.sub(r"\*+", "*", value) for key, value in wanted.items()}


def _asked_for(identifier: Dataset) -> list[str]:
    """Return the keywords of the keys that an answer repeats, without those of command and file meta information."""
    tags = list(identifier.keys())
    found = [keyword_for_tag(tag) for tag in tags if tag.group >= 0x0008 and not tag.is_private]
    return [keyword for keyword in found if tag_for_keyword(keyword) is not None and keyword not in _SENT_AS_IS]


def _check_wanted(request: ServiceRequest) -> None:
    """Raise ServiceRefused if nobody waits for the answers any more."""
    if request.is_over():
        raise ServiceRefused(dimse.CANCELLED if request.is_cancelled else dimse.OUT_OF_RESOURCES, "")


def _watched(objects: Iterator[OwnObject], request: ServiceRequest) -> Iterator[OwnObject]:
    """Yield objects as long as their caller waits for them, and not for too long."""
    deadline = time.monotonic() + _MATCH_WITHIN_S
    for number, one in enumerate(objects):
        if number % _OBJECTS_BETWEEN_LOOKS == 0:
            _check_wanted(request)
            if time.monotonic() > deadline:
                raise ServiceRefused(dimse.OUT_OF_RESOURCES, "matching takes too long: ask for less")
        yield one


def _listed(wanted: Mapping[str, str], key: str) -> list[str]:
    """Return the values of a key that may have several; [] if it is universal."""
    value = wanted.get(key, "")
    return value.split("\\") if value not in ("", "*") else []


def _check_keys_above(request: ServiceRequest, level: Level, wanted: Mapping[str, str]) -> None:
    """Refuse a query that leaves a unique key above its level open: relational queries are not offered (C.4.1.2)."""
    is_study_root = request.abstract_syntax in (STUDY_ROOT_FIND, STUDY_ROOT_MOVE)
    above = list(Level)[1 if is_study_root else 0 : list(Level).index(level)]
    for key in (UNIQUE_KEYS[each] for each in above):
        value = wanted.get(key, "")
        if not value or any(letter in value for letter in "\\*?"):
            raise ServiceRefused(dimse.DOES_NOT_MATCH, f"{key} must be one value at level {level.value}")
