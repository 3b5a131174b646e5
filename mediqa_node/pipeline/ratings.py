"""Import of rating tables, all of a table or nothing; and the agreement of the readers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import structlog

from mediqa_node.dicom.part10 import read_header
from mediqa_node.domain.errors import UndecodablePixels
from mediqa_node.domain.rating import CRITERIA, Rating, RatingImport
from mediqa_node.exchange.rating_table import Layout, Problem, RatingTable, mixed_scales, read_ratings
from mediqa_node.reader_study.agreement import Agreement, agreement
from mediqa_node.reader_study.mos import opinions, score_table
from mediqa_node.storage import index, ratings
from mediqa_node.storage.database import Connection, Database
from mediqa_node.storage.spool import Spool
from mediqa_node.system.failpoint import reach

log = structlog.get_logger("annotations")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of an import.

    Attributes:
        table: its rows; with any of its `problems` nothing was imported.
        kept: the record of the import; None: nothing was kept.
        known: the same file had been imported before, so that nothing was done.
        notes: remarks that do not prevent the import.
    """

    table: RatingTable
    problems: tuple[Problem, ...]
    kept: RatingImport | None = None
    known: bool = False
    notes: tuple[str, ...] = ()


def take_in(
    database: Database,
    content: bytes,
    layout: Layout,
    *,
    by: str,
    at: float,
    dry_run: bool = False,
    series_keys: Callable[[Iterable[str]], Mapping[str, str]] | None = None,
) -> Outcome:
    """Check a table of ratings and keep it.

    Args:
        content: CSV; see `exchange.rating_table`.
        by: who imports it.
        at: seconds since 1970.
        dry_run: check only.
        series_keys: maps Series Instance UIDs to themselves by their key in exports; None: nothing was
            exported, and the table has to name series by UID.

    Raises:
        RatingsRefused: it is not a table.
        StorageFailed: the database refused; nothing was kept.
    """
    with database.read() as connection:
        uids = ratings.known_series(connection)
    resolvers: dict[str, Callable[[str], str | None]] = {"series_uid": lambda uid: uid if uid in uids else None}
    if series_keys is not None:
        resolvers["series_key"] = series_keys(uids).get
    table = read_ratings(content, layout, resolvers)  # outside of the transaction: the receiver waits while one writes
    with database.read() if dry_run else database.write() as connection:
        if not dry_run:
            ratings.lock_imports(connection)
        if before := ratings.imports(connection, sha256=table.sha256):
            return Outcome(table=table, problems=(), kept=before[0], known=True)
        problems = tuple(sorted((*table.problems, *_against_record(connection, table)), key=lambda found: found.row))
        if not table.rows and not problems:
            problems = (Problem(row=1, text="no row below the headings holds a rating"),)
        outcome = Outcome(table=table, problems=problems, notes=_notes(table))
        if problems or dry_run:
            return outcome
        rows = [rating for _, rating in table.rows]
        ratings.save_import(connection, rows, sha256=table.sha256, by=by, at=at)
        [made] = ratings.imports(connection, sha256=table.sha256)
        reach("before-rating-commit")
    log.info("ratings imported", number=made.id, ratings=made.n_ratings, series=made.n_series, readers=made.n_readers)
    return Outcome(table=table, problems=(), kept=made, notes=outcome.notes)


def _against_record(connection: Connection, table: RatingTable) -> list[Problem]:
    """Return how rows conflict with kept ratings, or name images that are not in their series."""
    kept = ratings.kept(connection)
    keys = {row.rating.key: row.import_id for row in kept}
    scales = {(row.rating.study_id, row.rating.criterion): row for row in kept}
    named = sorted({rating.series_instance_uid for _, rating in table.rows if rating.sop_instance_uid})
    images = ratings.images_of(connection, named)
    problems = []
    for number, rating in table.rows:
        if (before := keys.get(rating.key)) is not None:
            text = f"reader {rating.reader_id} has rated this series for {rating.criterion} in import {before}"
            problems.append(Problem(row=number, text=f"{text}, repeat {rating.repeat}"))
        same = scales.get((rating.study_id, rating.criterion))
        if same is not None and same.rating.scale != rating.scale:
            where = f"import {same.import_id}"
            problems.append(Problem(row=number, text=mixed_scales(rating, same.rating, where)))
        image = rating.sop_instance_uid
        if image and (rating.series_instance_uid, image) not in images:
            problems.append(Problem(row=number, text=f"sop_uid {image}: no image of this series"))
    return problems


def _notes(table: RatingTable) -> tuple[str, ...]:
    given: dict[tuple[str, str], list[float]] = {}
    for _, rating in table.rows:
        given.setdefault((rating.reader_id, rating.criterion), []).append(rating.score)
    constant = [
        f"reader {reader} gives every series {scores[0]:g} for {criterion}"
        for (reader, criterion), scores in sorted(given.items())
        if len(scores) > 1 and len(set(scores)) == 1
    ]
    unread = [f"columns that mean nothing here: {', '.join(table.unread)}"] if table.unread else []
    return (*unread, *constant)


# ── agreement ────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyReport:
    """The agreement of the readers of one study on one criterion; `method` as in `domain.rating.Mos`."""

    study_id: str
    criterion: str
    method: str
    agreement: Agreement


def report(
    database: Database, spool: Spool, *, advance: Callable[[int, int], None] = lambda _done, _of: None
) -> list[StudyReport]:
    """Return the agreement of all ratings that count, by study and criterion."""
    with database.read() as connection:
        rows = [row.rating for row in ratings.kept(connection)]
    rated = sorted({rating.series_instance_uid for rating in rows})
    patients, unknown = _patients(database, spool, rated, advance)
    rows.sort(key=_study)
    return [
        _of_study(*study, list(members), patients, unknown)
        for study, members in groupby(rows, key=lambda rating: (rating.study_id, rating.criterion))
    ]


def _study(rating: Rating) -> tuple[str, int]:
    return rating.study_id, CRITERIA.index(rating.criterion)


def _of_study(
    study_id: str, criterion: str, rows: Sequence[Rating], patients: Mapping[str, str], unknown: set[str]
) -> StudyReport:
    table = score_table(rows)
    patient_of = [patients[uid] for uid in table.series]
    found = agreement(table.scores, table.readers, patient_of, repeats=table.repeats)
    if without := len(unknown.intersection(table.series)):
        text = f"{without} of {len(table.series)} series no longer name their patient: each study counts as one patient"
        found = replace(found, warnings=(*found.warnings, f"{text} patient, and the intervals may be too narrow"))
    method = opinions(table.scores).method
    return StudyReport(study_id=study_id, criterion=criterion, method=method, agreement=found)


def _patients(
    database: Database, spool: Spool, series: Sequence[str], advance: Callable[[int, int], None]
) -> tuple[dict[str, str], set[str]]:
    """Map each series to its patient; where unknown, the study stands in."""
    found: dict[str, str] = {}
    unknown: set[str] = set()
    for done, uid in enumerate(series, start=1):
        with database.read() as connection:
            row = index.find_series(connection, uid)
            kept = index.current_instances(connection, uid)
        patient = _patient(spool.path(kept[0].path)) if kept else None
        if patient is None:
            unknown.add(uid)
        found[uid] = patient or (row.study_instance_uid if row is not None else uid)
        advance(done, len(series))
    return found, unknown


def _patient(path: Path) -> str | None:
    """Return the patient of an image; None where the file is gone or gives none."""
    try:
        header = read_header(path)
    except (OSError, UndecodablePixels):
        return None
    named = [str(header.get(name, "") or "").strip() for name in ("PatientID", "IssuerOfPatientID")]
    return "\n".join(named) if named[0] else None
