"""Pull series from an archive, for baselines and backfill: ask, choose, and have one after another moved here.

What was pulled is recorded series by series, so that a pull that was interrupted goes on, and a second one skips what
is here. The receiver takes the images in; this station only asks for them, and waits while the node has enough to do.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Self, TypeVar

import structlog

from mediqa_node.domain.errors import MediqaError, PeerRefused, PeerUnavailable, QueryUnanswered
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.pull import ArchivedSeries
from mediqa_node.network.retrieve import RetrieveLink, retrieve_from
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.storage import heartbeats, pulls

log = structlog.get_logger("pull")

AT_WORK_AT_MOST = 8
"""Series that may be on their way or wait for the worker before the next is asked for."""

_LOOK_EVERY_S = 0.5
_FAILURES_AT_MOST = 3
_SEARCHED_CHARACTERS = 256

Advance = Callable[[int, int], None]
_Answer = TypeVar("_Answer")


class NotReceiving(MediqaError):
    """The operator has to act: nobody would take the images in."""


class _Partly(PeerUnavailable):
    """Some instances of a series were not sent, and others were: the archive works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which series to pull.

    Attributes:
        since, until: study dates, both included.
        modality: CT, MR, OP or any other; "" for all.
        has_description: whether a series with this Series Description (0008,103E) is wanted.
        at_most: how many series; None: all.
    """

    since: date
    until: date
    modality: str = ""
    has_description: Callable[[str], bool] = lambda description: True
    at_most: int | None = None

    def days(self) -> Iterator[str]:
        """Yield the days as an archive is asked for them, one query each: none has to give a long answer."""
        for number in range((self.until - self.since).days + 1):
            yield (self.since + timedelta(days=number)).strftime("%Y%m%d")


@dataclass(slots=True, kw_only=True)
class Pulled:
    """What a pull found and did.

    Attributes:
        series: those that are not here yet, or were to be pulled.
        n_here: series that were left out because they are here.
        n_pulled, n_instances: of those, what was moved.
        failures: why, by Series Instance UID, or by what could not be asked for.
    """

    series: list[ArchivedSeries] = field(default_factory=list)
    n_here: int = 0
    n_pulled: int = 0
    n_instances: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def description_filter(pattern: str) -> Callable[[str], bool]:
    """Return a test for a regular expression in a description, case ignored, in time that grows with its length only.

    Raises:
        ValueError: it is no regular expression (RE2 syntax).
    """
    import re2

    options: Any = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise ValueError(f"{pattern!r} is no regular expression: {reason}") from error
    return lambda description: compiled.search(description[:_SEARCHED_CHARACTERS]) is not None


def find(node: NodeContext, peer: Peer, wanted: Wanted, advance: Advance) -> Pulled:
    """Ask an archive for series that are wanted and not here. A query that it cannot answer is a failure of its own.

    Raises:
        PeerUnavailable, PeerRefused: as `retrieve_from`, or several queries in a row failed.
    """
    found, seen = Pulled(), set[str]()
    days = list(wanted.days())
    with _Archive(node, peer, found) as archive:
        for done, day in enumerate(days, start=1):
            for study, study_date in archive.studies_of(day, wanted.modality):
                for series in archive.series_of(study, study_date):
                    if series.series_instance_uid not in seen and _is_wanted(series, wanted):
                        seen.add(series.series_instance_uid)
                        _sort(node, series, found)
                    if wanted.at_most is not None and len(found.series) >= wanted.at_most:
                        return found
            advance(done, len(days))
    return found


class _Archive:
    """An archive that is asked one query after another, over a new association after one that failed."""

    def __init__(self, node: NodeContext, peer: Peer, found: Pulled) -> None:
        self._node, self._peer, self._found = node, peer, found
        self._opened = ExitStack()
        self._link: RetrieveLink | None = None
        self._failed_in_a_row = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def studies_of(self, day: str, modality: str) -> list[tuple[str, str]]:
        """Return UID and date of the studies of a day."""
        return self._ask(lambda link: link.studies_of(day, modality), f"studies of {day}")

    def series_of(self, study: str, study_date: str) -> list[ArchivedSeries]:
        """Return the series of a study."""
        return self._ask(lambda link: link.series_of(study, study_date), f"study {study}")

    def _ask(self, query: Callable[[RetrieveLink], list[_Answer]], what: str) -> list[_Answer]:
        if self._link is None:
            own, timeout_s = self._node.device.ae_title, self._node.delivery.timeout_s
            self._link = self._opened.enter_context(retrieve_from(self._peer, ae_title=own, timeout_s=timeout_s))
        try:
            answers = query(self._link)
        except QueryUnanswered as error:
            self._failed_in_a_row += 1
            self._link = None
            self._opened.close()
            if self._failed_in_a_row == _FAILURES_AT_MOST:
                raise
            self._found.failures[what] = str(error)
            log.warning("archive not asked", peer=self._peer.name, what=what, message=str(error))
            return []
        self._failed_in_a_row = 0
        return answers


def _is_wanted(series: ArchivedSeries, wanted: Wanted) -> bool:
    return wanted.modality in ("", series.modality) and wanted.has_description(series.description)


def _sort(node: NodeContext, series: ArchivedSeries, found: Pulled) -> None:
    with node.database.read() as connection:
        is_here = pulls.is_here(connection, series)
    if is_here:
        found.n_here += 1
    else:
        found.series.append(series)


def pull(node: NodeContext, peer: Peer, found: Pulled, advance: Advance) -> None:
    """Have what was found moved here, one series at a time, and record each.

    Raises:
        NotReceiving: the receiver does not run.
        PeerRefused: the archive refuses C-MOVE, or does not know this node.
        PeerUnavailable: it has failed several times in a row.
    """
    failed_in_a_row = 0
    for done, series in enumerate(found.series):
        advance(done, len(found.series))
        _wait_for_room(node)
        with node.database.write() as connection:
            own = node.device.ae_title
            pulls.note_asked(node.database, connection, series, peer=peer, ae_title=own, at=node.clock())
        try:
            found.n_instances += _move(node, peer, series)
        except (PeerRefused, PeerUnavailable) as error:
            _note_failure(node, series, found, error)
            failed_in_a_row = 0 if isinstance(error, _Partly) else failed_in_a_row + 1
            if isinstance(error, PeerRefused) or failed_in_a_row == _FAILURES_AT_MOST:
                raise
        else:
            failed_in_a_row, found.n_pulled = 0, found.n_pulled + 1
    advance(len(found.series), len(found.series))


def _move(node: NodeContext, peer: Peer, series: ArchivedSeries) -> int:
    """Have one series moved here, record it, and return the number of its instances."""
    own = node.device.ae_title
    with retrieve_from(peer, ae_title=own, timeout_s=node.delivery.timeout_s) as link:
        last = link.move_series(series, own)
    uid, now = series.series_instance_uid, node.clock()
    with node.database.read() as connection:
        n_received = pulls.n_received(connection, uid)
    if last.completed and not n_received:
        raise PeerRefused(
            f"{peer.name} has sent {last.completed} instances, and none has arrived: does it have this node's host and "
            f"port for {own}, and may it store here (`receiver.allowed`)?",
            status=last.status,
        )
    if last.status != 0x0000 or last.failed or not n_received:
        kind = _Partly if last.completed else PeerUnavailable
        raise kind(f"{peer.name} sent {last.completed} instances, {last.failed} not (C-MOVE status {last.status:#06x})")
    if series.n_instances is not None and n_received < series.n_instances:
        raise _Partly(f"{peer.name} has {series.n_instances} instances of it, and {n_received} are here")
    with node.database.write() as connection:
        pulls.note_pulled(connection, uid, n_instances=n_received, at=now)
    log.info("series pulled", series=uid, peer=peer.name, instances=n_received)
    return n_received


def _note_failure(node: NodeContext, series: ArchivedSeries, found: Pulled, error: MediqaError) -> None:
    found.failures[series.series_instance_uid] = str(error)
    with node.database.write() as connection:
        pulls.note_failed(connection, series.series_instance_uid, str(error), at=node.clock())
    log.warning("series not pulled", series=series.series_instance_uid, message=str(error))


def require_receiver(node: NodeContext) -> None:
    """Raise NotReceiving unless the node's receiver runs, here or on another machine."""
    with node.database.read() as connection:
        beats = heartbeats.read_heartbeats(connection)
    now = node.clock()
    if not any(beat.kind == "receiver" and beat.is_alive(now) for beat in beats):
        raise NotReceiving("the node does not run, so that nobody would take the images in: `mediqa-node serve`")


def _wait_for_room(node: NodeContext) -> None:
    """Wait until the node can take another series: live ones come first."""
    while True:
        require_receiver(node)
        with node.database.read() as connection:
            n_waiting = pulls.n_waiting(connection)
        if n_waiting < AT_WORK_AT_MOST and node.spool.has_room():
            return
        time.sleep(_LOOK_EVERY_S)
