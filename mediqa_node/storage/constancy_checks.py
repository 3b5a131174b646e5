"""Constancy checks of the score, as recorded."""

from collections.abc import Mapping
from dataclasses import asdict

import sqlalchemy as sa

from mediqa_node.domain.constancy import Baseline, Check, CheckedBy, Identity
from mediqa_node.domain.series import parse_state
from mediqa_node.storage.tables import constancy_checks as checks

_IDENTITY = tuple(
    checks.c[name] for name in ("software_version", "weights_sha256", "execution", "libraries", "host_id")
)
_OWN = (
    "id", "checked_at", "scores", "expected", "compared_with", "bound", "drift", "passed", "problem",
    "refusals", "made_by", "acknowledged_at", "acknowledged_by",
)  # fmt: skip
_LATELY_S = 2 * 86_400.0
"""A host that has not checked for so long does not run."""
_BY_WORKER = checks.c.made_by != CheckedBy.COMMAND


def save_check(connection: sa.Connection, check: Check) -> int:
    """Record a check; return its number."""
    values = {name: getattr(check, name) for name in _OWN if name != "id"}
    result = connection.execute(sa.insert(checks).values(**values, **asdict(check.identity)))
    return int((result.inserted_primary_key or (0,))[0])


def last_check(connection: sa.Connection, identity: Identity | None = None) -> Check | None:
    """Return the newest check, or None.

    Args:
        identity: None: of any.
    """
    return _newest(connection, *_is(identity))


def last_of_worker(connection: sa.Connection) -> Check | None:
    """Return the newest check by a worker, or None."""
    return _newest(connection, _BY_WORKER)


def standing(connection: sa.Connection, identity: Identity | None = None) -> Check | None:
    """Return the check that decides whether results of an identity are withheld, or None.

    It is the newest one by a worker, or a newer drift found by a command. A good check by a command does not
    count: its process has its own copy of the weights in memory.

    Args:
        identity: None: that of the newest check by a worker, or by a command if no worker has checked; of several hosts
            the one that withholds results.
    """
    if identity is None:
        last = last_of_worker(connection) or last_check(connection)
        found = standing(connection, last.identity) or last if last is not None else None
        return next((one for one in _of_other_hosts(connection, last) if one.withholds), found)
    drifted = sa.and_(checks.c.passed.is_(False), checks.c.problem.is_(None))
    return _newest(connection, *_is(identity), sa.or_(_BY_WORKER, drifted))


def _of_other_hosts(connection: sa.Connection, last: Check | None) -> list[Check]:
    """Return what stands for each host that has checked at about the same time as the last one."""
    if last is None or last.identity.host_id is None:
        return []
    newest = sa.select(sa.func.max(checks.c.id)).where(_BY_WORKER, checks.c.checked_at > last.checked_at - _LATELY_S)
    of_each = checks.c.id.in_(newest.group_by(checks.c.host_id))
    query = sa.select(checks).where(of_each, checks.c.host_id != last.identity.host_id).order_by(checks.c.host_id)
    return list(filter(None, (standing(connection, one.identity) for one in _checks(connection, query))))


def history(connection: sa.Connection, *, at_most: int) -> list[Check]:
    """Return the newest checks, newest first."""
    return _checks(connection, sa.select(checks).order_by(checks.c.id.desc()).limit(at_most))


def last_good_at(connection: sa.Connection) -> float | None:
    """Return when a check last passed, seconds since 1970, or None."""
    query = sa.select(checks.c.checked_at).where(checks.c.passed.is_(True)).order_by(checks.c.id.desc()).limit(1)
    return connection.execute(query).scalar_one_or_none()


def first_scores(connection: sa.Connection, weights_sha256: str) -> Mapping[str, float] | None:
    """Return the scores of the first check of these weights at this site, or None."""
    query = sa.select(checks.c.scores).where(checks.c.weights_sha256 == weights_sha256, checks.c.problem.is_(None))
    return connection.execute(query.order_by(checks.c.id).limit(1)).scalar_one_or_none()


def accepted_scores(connection: sa.Connection, identity: Identity) -> Mapping[str, float] | None:
    """Return the scores of this identity that a person acknowledged last, or None."""
    found = _newest(connection, *_is(identity), checks.c.acknowledged_at.is_not(None))
    return found.scores if found is not None else None


def failed(connection: sa.Connection) -> Check | None:
    """Return the check that withholds results of the current identity, or None.

    A failed check of another identity, such as before a rollback, no longer counts.
    """
    found = standing(connection)
    return found if found is not None and found.withholds else None


def acknowledge(connection: sa.Connection, check_id: int, *, by: str, at: float) -> None:
    """Record who accepted a drift, and when."""
    statement = sa.update(checks).where(checks.c.id == check_id, checks.c.acknowledged_at.is_(None))
    connection.execute(statement.values(acknowledged_by=by, acknowledged_at=at))


def _is(identity: Identity | None) -> list[sa.ColumnElement[bool]]:
    if identity is None:
        return []
    return [column.is_not_distinct_from(getattr(identity, column.name)) for column in _IDENTITY]


def _newest(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> Check | None:
    query = sa.select(checks).where(*conditions).order_by(checks.c.id.desc()).limit(1)
    return next(iter(_checks(connection, query)), None)


def _checks(connection: sa.Connection, query: sa.Select[tuple[object, ...]]) -> list[Check]:
    return [
        Check(
            identity=Identity(**{column.name: row._mapping[column.name] for column in _IDENTITY}),
            **{name: row._mapping[name] for name in _OWN}
            | {
                "compared_with": parse_state(Baseline, row.compared_with),
                "made_by": parse_state(CheckedBy, row.made_by),
            },
        )
        for row in connection.execute(query)
    ]
