"""Find series and reports by what a person types: a UID, or its last digits."""

from collections.abc import Sequence

import sqlalchemy as sa

from mediqa_node.domain.errors import AmbiguousKey
from mediqa_node.storage.tables import instances, reports, series

SHORTEST_KEY = 4


def all_series_uids(connection: sa.Connection) -> list[str]:
    """Return the UID of every series."""
    return list(connection.execute(sa.select(series.c.series_instance_uid)).scalars())


def short_keys(uids: Sequence[str], among: Sequence[str]) -> dict[str, str]:
    """Return for each UID its shortest ending that no other UID has, of at least four characters.

    >>> short_keys(["1.2.34567", "1.9.94567"], ["1.2.34567", "1.9.94567"])
    {'1.2.34567': '34567', '1.9.94567': '94567'}
    """
    backwards = sorted(uid[::-1] for uid in set(among) | set(uids))
    keys = {}
    for i, text in enumerate(backwards):
        neighbours = backwards[max(0, i - 1) : i] + backwards[i + 1 : i + 2]
        shared = max((_shared(text, other) for other in neighbours), default=0)
        keys[text[::-1]] = text[: max(SHORTEST_KEY, shared + 1)][::-1]
    return {uid: keys[uid] for uid in uids}


def _shared(one: str, other: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def series_uid(connection: sa.Connection, key: str) -> str | None:
    """Return the UID of the only series whose UID is, or ends with, `key`; None if there is none.

    Raises:
        AmbiguousKey: several UIDs end so.
    """
    column = series.c.series_instance_uid
    if connection.execute(sa.select(column).where(column == key)).first() is not None:
        return key
    if len(key) < SHORTEST_KEY:
        return None
    found = list(connection.execute(sa.select(column).where(column.endswith(key, autoescape=True)).limit(3)).scalars())
    if len(found) > 1:
        raise AmbiguousKey(f"the UIDs of several series end with {key}; give more of it")
    return str(found[0]) if found else None


def newest_report(connection: sa.Connection, series_instance_uid: str) -> str | None:
    """Return the SOP Instance UID of the newest report of a series, or None."""
    query = (
        sa.select(reports.c.sop_instance_uid)
        .where(reports.c.series_instance_uid == series_instance_uid)
        .order_by(reports.c.revision.desc(), reports.c.created_at.desc())
    )
    return connection.execute(query.limit(1)).scalar_one_or_none()


def first_files(connection: sa.Connection, series_instance_uids: Sequence[str]) -> dict[str, str]:
    """Return the path, relative to the spool, of one kept instance of each series that still has one."""
    chosen = (
        sa.select(sa.func.min(instances.c.id))
        .where(
            instances.c.series_instance_uid.in_(series_instance_uids),
            instances.c.status == "current",
            instances.c.purged_at.is_(None),
        )
        .group_by(instances.c.series_instance_uid)
    )
    query = sa.select(instances.c.series_instance_uid, instances.c.path).where(instances.c.id.in_(chosen))
    return {row.series_instance_uid: row.path for row in connection.execute(query)}


def files_of(connection: sa.Connection, sop_instance_uids: Sequence[str]) -> dict[str, str]:
    """Return the path, relative to the spool, of the current copy of each instance that is kept."""
    query = sa.select(instances.c.sop_instance_uid, instances.c.path).where(
        instances.c.sop_instance_uid.in_(sop_instance_uids),
        instances.c.status == "current",
        instances.c.purged_at.is_(None),
    )
    return {row.sop_instance_uid: row.path for row in connection.execute(query)}
