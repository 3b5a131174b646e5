"""The sweep between arrival and assessment: reads reject notes and queues complete series.

Every decision is derived from stored facts, so running the sweep twice, or after a restart, is harmless.
"""

from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog
from pydicom import Dataset

from mediqa_node.dicom.header import text
from mediqa_node.dicom.part10 import read_header
from mediqa_node.dicom.stacks.assemble import assemble_stacks, concatenation_complete
from mediqa_node.domain.errors import MediqaError
from mediqa_node.domain.policy import CompletionRules
from mediqa_node.domain.series import Completed, SeriesState
from mediqa_node.pipeline.completion import Completion, SeriesFacts, completion, could_be_contiguous
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.policy import completion_rules
from mediqa_node.pipeline.reject_notes import read_unread
from mediqa_node.pipeline.score import read_headers
from mediqa_node.storage import copies, index, procedure_steps, rejections
from mediqa_node.storage.index import InstanceRow, SeriesRow
from mediqa_node.system.failpoint import reach

log = structlog.get_logger("courier")

_COME_ALONE = frozenset({"OP", "OPT"})
_LOOK_AT_ALL_EVERY_S = 1.0
_FRESH_S = 4.0
_STILL_ARRIVING_S = 0.2
_REMEMBERED = 256


def _is_fresh(row: SeriesRow, now: float) -> bool:
    """Return whether a series may become complete within a second: images arrived lately, and none just now."""
    return _STILL_ARRIVING_S <= now - row.last_instance_at <= _FRESH_S


@dataclass(frozen=True, slots=True)
class _HeaderFacts:
    announced: bool | None
    evenly_spaced: bool


class CompletionSweep:
    """Moves series from RECEIVING to READY."""

    def __init__(self, node: NodeContext) -> None:
        self.node = node
        self._looked_at: OrderedDict[tuple[str, int], _HeaderFacts] = OrderedDict()
        self._rules: OrderedDict[str, CompletionRules] = OrderedDict()
        self._all_looked_at = float("-inf")

    def run(self) -> int:
        """Read documents and complete series; return how many became ready.

        A series waits while a copy of one of its images is compared, and while a document of its study is unread.
        """
        try:
            read_unread(self.node)
        except MediqaError as error:  # only the studies of these documents wait
            log.warning("documents not read", reason=str(error), hourly_for="documents")
        with self.node.database.read() as connection:
            unresolved = copies.candidate_series(connection)
            unread = rejections.studies_with_unread(connection)
            receiving = index.series_in(connection, SeriesState.RECEIVING)
            now = self.node.clock()
            mpps = self.node.receiver.mpps
            listed = procedure_steps.listed_by_ended(connection, since=now - _FRESH_S) if mpps else set()
        unhurried = abs(now - self._all_looked_at) >= _LOOK_AT_ALL_EVERY_S
        if unhurried:
            self._all_looked_at = now
        return sum(
            self._settle(row)
            for row in receiving
            if row.series_instance_uid not in unresolved
            and row.study_instance_uid not in unread
            and (unhurried or _is_fresh(row, now) or row.series_instance_uid in listed)
        )

    def _settle(self, row: SeriesRow) -> bool:
        now, rules = self.node.clock(), self._rules_for(row)
        facts = self._facts(row, rules)
        decided = completion(facts, rules, now)
        if decided is not None and decided.reason is Completed.QUIET and facts.announced is None:
            # silence proves nothing if the header announces the number of objects
            announced = self._header_facts(row).announced
            decided = completion(replace(facts, announced=announced), rules, now)
        if decided is None:
            return False
        return self._ready(row, decided, now)

    def _ready(self, row: SeriesRow, decided: Completion, now: float) -> bool:
        job = f"score:{row.series_instance_uid}:{row.generation}"
        with self.node.database.write() as connection:
            moved = index.move(
                connection,
                row.series_instance_uid,
                SeriesState.READY,
                at=now,
                generation=row.generation,
                completion=decided.reason,
                job=job,
            )
            if moved:
                index.learn_sender(connection, row, longest_gap_s=self.node.completion.forced_after_s)
                uid = row.series_instance_uid
                self.node.jobs.score(connection, job, uid, row.generation, can_wait=row.pulled)
        reach("after-ready")
        if moved:
            log.info("series ready", series=row.series_instance_uid, why=decided.reason, instances=row.n_instances)
            self._read_ahead(row)
        return moved

    def _read_ahead(self, row: SeriesRow) -> None:
        """Read the headers that the report will need, while the worker assesses."""
        if not self.node.returns:
            return
        with self.node.database.read() as connection:
            rows = index.current_instances(connection, row.series_instance_uid)
        with suppress(MediqaError, OSError):  # the assessment reports it
            read_headers([self.node.spool.path(one.path) for one in rows])

    def _rules_for(self, row: SeriesRow) -> CompletionRules:
        """Return the times for a series; where rules of the site look at headers, its first is read once."""
        if not self.node.completion.rules:
            return self.node.completion
        uid = row.series_instance_uid
        if uid not in self._rules:
            with self.node.database.read() as connection:
                first = index.current_instances(connection, uid)[:1]
            try:
                header = read_header(self.node.spool.path(first[0].path)) if first else Dataset()
            except (MediqaError, OSError):  # the assessment reports it
                header = Dataset()
            self._rules[uid] = completion_rules(self.node, row, header)
            while len(self._rules) > _REMEMBERED:
                self._rules.popitem(last=False)
        return self._rules[uid]

    def _facts(self, row: SeriesRow, rules: CompletionRules) -> SeriesFacts:
        with self.node.database.read() as connection:
            association = index.association(connection, row.association_id)
            splits, gaps = index.sender(connection, row.calling_ae_title)
            mpps = self.node.receiver.mpps
            announced = procedure_steps.announced(connection, row.series_instance_uid) if mpps else None
        facts = SeriesFacts(
            opened_at=row.opened_at,
            last_instance_at=row.last_instance_at,
            n_associations=row.n_associations,
            association_closed_at=association.closed_at if association else row.last_instance_at,
            released=bool(association and association.released),
            moved_on=bool(association and association.last_series_uid != row.series_instance_uid),
            sender_splits=splits or any(gap > rules.quiet_after_s for gap in gaps),
            sender_gaps_s=gaps,
            announced=announced,
        )
        if announced is not None:
            return facts  # the list of the modality decides, whatever the spacing
        if not could_be_contiguous(facts) and not facts.moved_on:
            return facts
        if self.node.clock() - row.last_instance_at < rules.contiguous_after_s / 2:
            return facts  # headers are read once the series has paused
        seen = self._header_facts(row)
        return replace(facts, announced=seen.announced, evenly_spaced=seen.evenly_spaced)

    def _header_facts(self, row: SeriesRow) -> _HeaderFacts:
        """Return the header facts of a series, read once per generation."""
        key = (row.series_instance_uid, row.generation)
        if key not in self._looked_at:
            with self.node.database.read() as connection:
                rows = index.current_instances(connection, row.series_instance_uid)
            self._looked_at[key] = _look(self.node, rows)
            while len(self._looked_at) > _REMEMBERED:
                self._looked_at.popitem(last=False)
        return self._looked_at[key]


def _look(node: NodeContext, rows: list[InstanceRow]) -> _HeaderFacts:
    """Return completeness evidence from headers; unreadable headers give none, so the timers decide."""
    try:
        files = read_headers([node.spool.path(row.path) for row in rows])
        announced = concatenation_complete(files.headers)
        if not any("Rows" in header for header in files.headers):
            return _HeaderFacts(announced, evenly_spaced=True)
        stacks = assemble_stacks(files.headers)
        alone = all(text(header, "Modality") in _COME_ALONE for header in files.headers)
        even = all(len(stack.frames) >= 3 and not {"gap", "uneven_spacing"} & set(stack.flags) for stack in stacks)
        return _HeaderFacts(announced, evenly_spaced=bool(stacks) and (alone or even))
    except MediqaError:
        return _HeaderFacts(None, evenly_spaced=False)
    except Exception:
        log.exception("headers not understood", series=rows[0].series_instance_uid if rows else None)
        return _HeaderFacts(None, evenly_spaced=False)
