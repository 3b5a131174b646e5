"""Self-check of a site: find pairs of series whose order of quality is known, and compare their scores.

Stored parameters narrow the choice; of each series that is left, the header of one kept image is read. Studies are
looked at a few at a time, so that memory does not grow with the number of series.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from mediqa_node.dicom.part10 import read_header
from mediqa_node.dicom.prompt_rules import PromptRules
from mediqa_node.dicom.series_pairs import SeriesFacts, pairs_in
from mediqa_node.dicom.technique.pair_facts import has_contrast, may_pair, pair_facts
from mediqa_node.domain.errors import MediqaError
from mediqa_node.domain.promotion import Weights
from mediqa_node.domain.self_check import PairKind, ScoredPair
from mediqa_node.domain.technique import Technique
from mediqa_node.pipeline.policy import acquisition_of
from mediqa_node.pipeline.score import data_errors
from mediqa_node.storage import self_checks
from mediqa_node.storage.database import Connection, Database
from mediqa_node.storage.self_checks import ScoredStack
from mediqa_node.storage.spool import Spool

STUDIES_AT_ONCE = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The pairs of a site, with their scores.

    Attributes:
        n_studies: studies with several series that may be compared.
        n_headers: series whose header was read.
        n_gone: series left out because their images are no longer kept, or cannot be read.
    """

    pairs: tuple[ScoredPair, ...]
    n_studies: int
    n_headers: int
    n_gone: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Study:
    """One study.

    Attributes:
        qualities: score of each series that may be compared, by UID.
        candidates: stored parameters of those that could be a pair with another.
        contrast: whether any series of the study had a contrast agent.
    """

    qualities: Mapping[str, float]
    candidates: Mapping[str, Technique]
    contrast: bool


def compare_pairs(
    database: Database,
    spool: Spool,
    rules: PromptRules,
    weights: Weights,
    *,
    kinds: Collection[PairKind] = tuple(PairKind),
    since: float = 0.0,
    advance: Callable[[int, int], None] = lambda _done, _of: None,
) -> Compared:
    """Return the pairs among the series that a checkpoint has scored, by study.

    Args:
        since: series received at or after this, seconds since 1970.
        advance: called with the number of studies that are done, and of all.
    """
    with database.read() as connection:
        uids = self_checks.studies(connection, weights, since=since)
    pairs: list[ScoredPair] = []
    n_studies = n_headers = n_gone = 0
    for start in range(0, len(uids), STUDIES_AT_ONCE):
        some = uids[start : start + STUDIES_AT_ONCE]
        with database.read() as connection:
            studies = list(_studies(connection, some, weights, since))
            stacks = self_checks.scored_stacks(connection, [uid for study in studies for uid in study.candidates])
        for study in studies:
            facts = [found for uid in study.candidates if (found := _facts(uid, study, stacks, spool, rules))]
            n_headers, n_gone = n_headers + len(facts), n_gone + len(study.candidates) - len(facts)
            pairs += _pairs(study, facts, kinds)
        n_studies += len(studies)
        advance(start + len(some), len(uids))
    return Compared(pairs=tuple(pairs), n_studies=n_studies, n_headers=n_headers, n_gone=n_gone)


def _studies(connection: Connection, uids: Sequence[str], weights: Weights, since: float) -> Iterator[_Study]:
    """Yield the studies with several series that may be compared."""
    techniques = self_checks.techniques_of(connection, uids)
    rows = self_checks.comparable(connection, uids, weights, since=since)
    for uid, members in groupby(rows, key=lambda row: row.study_instance_uid):
        qualities = {row.series_instance_uid: row.quality for row in members}
        known = dict(techniques.get(uid, ()))
        own = {one: technique for one, technique in known.items() if one in qualities}
        fit = {
            one: technique
            for one, technique in own.items()
            if any(two != one and may_pair(technique, other) for two, other in own.items())
        }
        if len(qualities) > 1:
            yield _Study(
                qualities=qualities,
                candidates=fit,
                contrast=any(has_contrast(technique) for technique in known.values()),
            )


def _facts(
    uid: str, study: _Study, stacks: Mapping[str, ScoredStack], spool: Spool, rules: PromptRules
) -> SeriesFacts | None:
    """Return what the header of a series states; None if it is no longer kept or cannot be read."""
    found = stacks.get(uid)
    if found is None or found.path is None:
        return None
    try:
        header = read_header(spool.path(found.path))
        with data_errors():
            return pair_facts(
                header,
                found.stack,
                study.candidates[uid],
                rules,
                n_stacks=found.n_stacks,
                acquisition=acquisition_of([header]),
            )
    except (MediqaError, OSError):
        return None


def _pairs(study: _Study, facts: Sequence[SeriesFacts], kinds: Collection[PairKind]) -> Iterator[ScoredPair]:
    for pair in pairs_in(facts, kinds, contrast=study.contrast):
        yield ScoredPair(
            kind=pair.kind,
            better=pair.better,
            worse=pair.worse,
            better_quality=study.qualities[pair.better],
            worse_quality=study.qualities[pair.worse],
        )
