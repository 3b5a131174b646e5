"""Expert ratings: every imported row, and the results derived from them.

Nothing is deleted: a table that was taken in by mistake is withdrawn, its rows stay and count no more.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from mediqa_node.domain.rating import CRITERIA, Mos, Rating, RatingImport
from mediqa_node.reader_study.mos import mos_by_series
from mediqa_node.storage.copies import OTHER_PIXELS
from mediqa_node.storage.correction_tables import corrections
from mediqa_node.storage.database import take_table
from mediqa_node.storage.rating_tables import rating_imports, ratings
from mediqa_node.storage.tables import instances, series

_RATING = tuple(Rating.__dataclass_fields__)
_COUNTS = rating_imports.c.withdrawn_at.is_(None)
_AT_ONCE = 500
"""UIDs in one query: databases limit its parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRating:
    """A rating with its place in the record."""

    rating: Rating
    import_id: int


def lock_imports(connection: sa.Connection) -> None:
    """Let no other import be checked or written until this transaction ends."""
    take_table(connection, rating_imports)


def save_import(connection: sa.Connection, rows: Iterable[Rating], *, sha256: str, by: str, at: float) -> int:
    """Keep a table of ratings; return its number."""
    values = {"sha256": sha256, "imported_by": by, "imported_at": at}
    result = connection.execute(sa.insert(rating_imports).values(**values))
    number = int((result.inserted_primary_key or (0,))[0])
    connection.execute(sa.insert(ratings), [{**asdict(rating), "import_id": number} for rating in rows])
    return number


def imports(connection: sa.Connection, *, sha256: str | None = None) -> list[RatingImport]:
    """Return the tables that were taken in, oldest first.

    Args:
        sha256: only those that count and have this digest.
    """
    own = [rating_imports.c[name] for name in RatingImport.__dataclass_fields__ if name in rating_imports.c]
    query = (
        sa.select(
            *own,
            sa.func.count().label("n_ratings"),
            sa.func.count(ratings.c.series_instance_uid.distinct()).label("n_series"),
            sa.func.count(ratings.c.reader_id.distinct()).label("n_readers"),
        )
        .join(ratings, ratings.c.import_id == rating_imports.c.id)
        .group_by(*own)
        .order_by(rating_imports.c.id)
    )
    if sha256 is not None:
        query = query.where(rating_imports.c.sha256 == sha256, _COUNTS)
    return [RatingImport(**row._mapping) for row in connection.execute(query)]


def withdraw(connection: sa.Connection, number: int, *, by: str, at: float) -> bool:
    """Let the rows of a table count no more; False if there is no such table, or it is withdrawn already."""
    statement = sa.update(rating_imports).where(rating_imports.c.id == number, _COUNTS)
    return bool(connection.execute(statement.values(withdrawn_by=by, withdrawn_at=at)).rowcount)


def kept(connection: sa.Connection, *, criterion: str | None = None) -> list[KeptRating]:
    """Return the ratings that count, in order of import; `criterion` None: of all criteria.

    Those of images that a decision has since replaced by other ones under the same UID count no more.
    """
    query = (
        sa.select(ratings, rating_imports.c.imported_at)
        .join(rating_imports, rating_imports.c.id == ratings.c.import_id)
        .where(_COUNTS)
    )
    if criterion is not None:
        query = query.where(ratings.c.criterion == criterion)
    replaced = _replaced(connection)
    return [
        KeptRating(rating=Rating(**{name: row._mapping[name] for name in _RATING}), import_id=row.import_id)
        for row in connection.execute(query.order_by(ratings.c.id))
        if row.imported_at > replaced.get((row.series_instance_uid, row.sop_instance_uid), 0.0)
    ]


def _replaced(connection: sa.Connection) -> dict[tuple[str, str | None], float]:
    """Return when images were last replaced by other ones, by series and SOP Instance UID; None: any of the series."""
    query = sa.select(corrections.c.series_instance_uid, corrections.c.copies, corrections.c.at)
    return {
        (row.series_instance_uid, image): row.at
        for row in connection.execute(query.order_by(corrections.c.id))
        if (images := row.copies.get(OTHER_PIXELS))
        for image in (None, *images)
    }


def mos_of(
    connection: sa.Connection, series_instance_uids: Collection[str], *, criterion: str = CRITERIA[0]
) -> dict[str, Mos]:
    """Return the mean opinion of those of the series that were rated, by UID.

    All ratings of a study are taken into account: a reader's habits show over all cases, not over these alone.
    """
    found = mos_by_series(row.rating for row in kept(connection, criterion=criterion))
    return {uid: found[uid] for uid in series_instance_uids if uid in found}


def known_series(connection: sa.Connection) -> set[str]:
    """Return the Series Instance UID of every series in the index."""
    return set(connection.execute(sa.select(series.c.series_instance_uid)).scalars())


def images_of(connection: sa.Connection, series_instance_uids: Sequence[str]) -> set[tuple[str, str]]:
    """Return series and SOP Instance UID of every instance of these series."""
    columns = instances.c.series_instance_uid, instances.c.sop_instance_uid
    found: set[tuple[str, str]] = set()
    for start in range(0, len(series_instance_uids), _AT_ONCE):
        some = series_instance_uids[start : start + _AT_ONCE]
        query = sa.select(*columns).where(columns[0].in_(some))
        found |= {(row.series_instance_uid, row.sop_instance_uid) for row in connection.execute(query)}
    return found
