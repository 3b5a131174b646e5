"""Baselines of a site: made from a period, used once a person has approved them, withdrawn by a person."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.baseline import Group, Usual
from mediqa_node.storage.database import take_table
from mediqa_node.storage.measure_tables import baselines, usual_values

_GROUP = tuple(Group.__dataclass_fields__)
_USUAL = tuple(name for name in Usual.__dataclass_fields__ if name not in ("group", "limit", "baseline"))


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineRow:
    """One baseline; times are seconds since 1970, `until` not included.

    Attributes:
        n_usual: usual values that it holds.
    """

    id: int
    made_at: float
    made_by: str
    since: float
    until: float
    approved_at: float | None
    approved_by: str | None
    withdrawn_at: float | None
    withdrawn_by: str | None
    n_usual: int

    @property
    def is_active(self) -> bool:
        """Whether measures are compared with it."""
        return self.approved_at is not None and self.withdrawn_at is None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"active": self.is_active}


def make(connection: sa.Connection, usual: Sequence[Usual], *, since: float, until: float, by: str, now: float) -> int:
    """Keep a baseline that nobody has approved yet; return its number."""
    made = connection.execute(
        sa.insert(baselines).values(made_at=now, made_by=by[:64], since=since, until=until).returning(baselines.c.id)
    )
    number = int(made.scalar_one())
    if usual:
        rows = [
            {
                "baseline_id": number,
                "limit_code": one.limit,
                **asdict(one.group),
                **{name: getattr(one, name) for name in _USUAL},
            }
            for one in usual
        ]
        connection.execute(sa.insert(usual_values), rows)
    return number


def approve(connection: sa.Connection, number: int, *, by: str, now: float) -> bool:
    """Use a baseline from now on, in place of any other; False if there is none of this number, or it is withdrawn."""
    take_table(connection, baselines)  # two decisions at once would approve two
    here = (baselines.c.id == number, baselines.c.withdrawn_at.is_(None), baselines.c.approved_at.is_(None))
    approved = connection.execute(sa.update(baselines).where(*here).values(approved_at=now, approved_by=by[:64]))
    if not approved.rowcount:
        return False
    others = (baselines.c.id != number, baselines.c.approved_at.is_not(None), baselines.c.withdrawn_at.is_(None))
    connection.execute(sa.update(baselines).where(*others).values(withdrawn_at=now, withdrawn_by=by[:64]))
    return True


def withdraw(connection: sa.Connection, number: int, *, by: str, now: float) -> bool:
    """Use a baseline no more; False if there is none of this number that is in use or awaits approval."""
    here = (baselines.c.id == number, baselines.c.withdrawn_at.is_(None))
    withdrawn = connection.execute(sa.update(baselines).where(*here).values(withdrawn_at=now, withdrawn_by=by[:64]))
    return bool(withdrawn.rowcount)


def every(connection: sa.Connection) -> list[BaselineRow]:
    """Return all baselines, oldest first."""
    count = sa.select(sa.func.count()).where(usual_values.c.baseline_id == baselines.c.id).scalar_subquery()
    rows = connection.execute(sa.select(baselines, count.label("n_usual")).order_by(baselines.c.id))
    return [BaselineRow(**row._mapping) for row in rows]


def usual_in(connection: sa.Connection, number: int) -> list[Usual]:
    """Return the usual values of a baseline, in the order in which they were kept."""
    query = sa.select(usual_values).where(usual_values.c.baseline_id == number).order_by(usual_values.c.id)
    return [_usual(row) for row in connection.execute(query)]


def active_usual(connection: sa.Connection, group: Group | None) -> list[Usual]:
    """Return the usual values of a group in the approved baseline; [] without one."""
    if group is None:
        return []
    of_group = (usual_values.c[name] == value for name, value in asdict(group).items())
    query = (
        sa.select(usual_values)
        .join(baselines, baselines.c.id == usual_values.c.baseline_id)
        .where(baselines.c.approved_at.is_not(None), baselines.c.withdrawn_at.is_(None), *of_group)
    )
    return [_usual(row) for row in connection.execute(query)]


def _usual(row: sa.Row[*tuple[Any, ...]]) -> Usual:
    group = Group(**{name: row._mapping[name] for name in _GROUP})
    values = {name: row._mapping[name] for name in _USUAL}
    return Usual(group=group, limit=row.limit_code, baseline=row.baseline_id, **values)
