"""Results of reading studies: ratings as rows of a rating table, and the scores of the series that were rated."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from mediqa_node.domain.rating import CRITERIA, Rating
from mediqa_node.domain.reading import Study
from mediqa_node.domain.series import InstanceStatus
from mediqa_node.storage import identities, reading
from mediqa_node.storage.tables import assessments, instances
from mediqa_node.storage.workbench_tables import worklist
from mediqa_node.storage.worklist import Filter

_AT_ONCE = 500


def ratings_of(connection: sa.Connection, study: Study) -> list[Rating]:
    """Return the ratings of a study that stand, by reader and place; readers are named by number."""
    found = []
    scale = study.scale
    for one in reading.readers(connection, study.id):
        places = {place.position: place for place in reading.places(connection, one.id)}
        seen: dict[str, int] = {}
        for given in reading.readings(connection, one.id):
            place = places[given.position]
            if given.values:  # a first reading may be one that could not be rated
                seen[place.series_instance_uid] = seen.get(place.series_instance_uid, 0) + 1
            found += [
                Rating(
                    series_instance_uid=place.series_instance_uid,
                    reader_id=one.pseudonym,
                    score=float(value),
                    scale_min=float(scale.low),
                    scale_max=float(scale.high),
                    scale_direction=scale.direction,
                    criterion=criterion,
                    study_id=study.study_id,
                    repeat=seen[place.series_instance_uid],
                    read_at=datetime.fromtimestamp(given.at, UTC).isoformat(timespec="seconds"),
                    display_window=given.window or None,
                    comment=given.comment or None,
                )
                for criterion, value in given.values.items()
            ]
    return found


def patients_of(connection: sa.Connection, series_instance_uids: Sequence[str]) -> dict[str, str]:
    """Map each series to a key of its patient, for a bootstrap over patients; never shown.

    Where no image names a patient, the series stands alone.
    """
    found = {}
    for uid in series_instance_uids:
        identity = identities.of_series(connection, uid)
        named = identity is not None and identity.patient_id
        found[uid] = f"{identity.issuer}\n{identity.patient_id}" if identity is not None and named else uid
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSeries:
    """The latest score of a series, with what a calibration has to name."""

    series_instance_uid: str
    number: int
    score: float
    modality: str
    scanner: str
    protocol: str
    trained: bool
    checkpoint: str
    weights_sha256: str
    card_sha256: str
    fingerprint: str

    @property
    def made_with(self) -> tuple[str, str, str]:
        """Weights, card and preprocessing: scores are comparable only where these are the same."""
        return self.weights_sha256, self.card_sha256, self.fingerprint


def scored(connection: sa.Connection, series_instance_uids: Sequence[str]) -> list[ScoredSeries]:
    """Return the latest score of each of these series that has one and is in the worklist."""
    found: list[ScoredSeries] = []
    for start in range(0, len(series_instance_uids), _AT_ONCE):
        some = series_instance_uids[start : start + _AT_ONCE]
        found += [_scored(row) for row in connection.execute(_latest(some))]
    return found


def _latest(uids: Sequence[str]) -> sa.Select[tuple[object, ...]]:
    checkpoint = assessments.c.assessment["checkpoint"].label("checkpoint")
    fingerprint = assessments.c.assessment["fingerprint"].label("fingerprint")
    newest = (
        sa.select(assessments.c.series_instance_uid, sa.func.max(assessments.c.revision).label("revision"))
        .where(assessments.c.series_instance_uid.in_(uids))
        .group_by(assessments.c.series_instance_uid)
        .subquery()
    )
    return (
        sa.select(worklist.c.id, worklist.c.scanner, worklist.c.protocol, worklist.c.modality,
                  assessments.c.series_instance_uid, assessments.c.quality, assessments.c.trained,
                  assessments.c.assessment["modality"].label("assessed_as"), checkpoint, fingerprint)
        .join(newest, sa.and_(newest.c.series_instance_uid == assessments.c.series_instance_uid,
                              newest.c.revision == assessments.c.revision))
        .join(worklist, worklist.c.series_instance_uid == assessments.c.series_instance_uid)
        .order_by(worklist.c.id)
    )  # fmt: skip


def _scored(row: sa.Row[*tuple[object, ...]]) -> ScoredSeries:
    checkpoint = row.checkpoint
    return ScoredSeries(
        series_instance_uid=row.series_instance_uid,
        number=row.id,
        score=row.quality,
        modality=row.assessed_as,
        scanner=row.scanner,
        protocol=row.protocol,
        trained=row.trained,
        checkpoint=checkpoint["name"],
        weights_sha256=checkpoint["sha256"],
        card_sha256=checkpoint["card_sha256"],
        fingerprint=row.fingerprint,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A scored series that may become a case."""

    number: int
    series_instance_uid: str
    revision: int
    score: float
    modality: str
    region: str


def candidates(connection: sa.Connection, wanted: Filter) -> list[Candidate]:
    """Return the scored series of a filter whose images are kept, by number.

    Args:
        wanted: modality, scanner, protocol and time of reception count.
    """
    gone = sa.select(instances.c.series_instance_uid).where(
        instances.c.purged_at.is_not(None), instances.c.status == InstanceStatus.CURRENT
    )
    names = ("modality", "scanner", "protocol")
    where = [worklist.c[name] == value for name in names if (value := getattr(wanted, name))]
    where += [worklist.c.received_at >= wanted.since] if wanted.since is not None else []
    where += [worklist.c.received_at < wanted.until] if wanted.until is not None else []
    same_revision = sa.and_(
        assessments.c.series_instance_uid == worklist.c.series_instance_uid,
        assessments.c.revision == worklist.c.revision,
    )
    columns = ("series_instance_uid", "revision", "score", "modality", "region")
    query = (
        sa.select(worklist.c.id.label("number"), *(worklist.c[name] for name in columns))
        .join(assessments, same_revision)
        .where(*where, worklist.c.score.is_not(None), worklist.c.series_instance_uid.not_in(gone))
        .order_by(worklist.c.id)
    )
    return [Candidate(**row._mapping) for row in connection.execute(query)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """A series to which all readers of a study gave the same overall rating: an example for the next study."""

    number: int
    value: int
    n_readers: int
    modality: str
    region: str
    study: str


def agreed(connection: sa.Connection, *, at_most: int = 30) -> list[Agreed]:
    """Return series whose readers agree, of closed studies, the newest study first, then by rating.

    Two readers or more, who all gave the same value each time they read it.
    """
    found: list[Agreed] = []
    for study in reading.every(connection):
        if study.is_open:
            continue
        given: dict[str, list[tuple[str, float]]] = {}
        for one in ratings_of(connection, study):
            if one.criterion == CRITERIA[0]:
                given.setdefault(one.series_instance_uid, []).append((one.reader_id, one.score))
        known = {
            uid: (int(values[0][1]), len({name for name, _ in values}))
            for uid, values in given.items()
            if len({score for _, score in values}) == 1 and len({name for name, _ in values}) > 1
        }
        columns = [worklist.c[name] for name in ("id", "modality", "region", "series_instance_uid")]
        query = sa.select(*columns).where(worklist.c.series_instance_uid.in_(list(known)[:_AT_ONCE]))
        rows = [(row, *known[row.series_instance_uid]) for row in connection.execute(query)]
        found += [
            Agreed(number=row.id, value=value, n_readers=n, modality=row.modality, region=row.region, study=study.name)
            for row, value, n in sorted(rows, key=lambda one: (one[1], one[0].id))
        ]
    return found[:at_most]


def newest_weights(connection: sa.Connection) -> str:
    """Return the digest of the weights that scored last, "" before any score."""
    query = sa.select(worklist.c.weights_sha256).where(worklist.c.score.is_not(None))
    return connection.execute(query.order_by(worklist.c.change.desc()).limit(1)).scalar_one_or_none() or ""
