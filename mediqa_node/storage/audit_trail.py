"""The audit trail of the workbench: who did, or was refused, what and when. It is only ever added to."""

from dataclasses import dataclass

import sqlalchemy as sa

from mediqa_node.domain.access import Outcome
from mediqa_node.storage.workbench_tables import events


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One audited action; `detail` never names a patient."""

    id: int
    at: float
    by: str
    role: str
    address: str
    action: str
    outcome: str
    object: str
    detail: str


_COLUMNS = [events.c[name] for name in Event.__dataclass_fields__]


def add(
    connection: sa.Connection,
    action: str,
    *,
    at: float,
    by: str,
    role: str = "",
    address: str = "",
    outcome: Outcome = Outcome.DONE,
    on: object = "",
    detail: str = "",
) -> None:
    """Record an action.

    Args:
        on: number or name of what it was done to.
    """
    values = {"by": by[:64], "role": role, "address": address[:64], "object": str(on)[:64], "detail": detail[:1000]}
    connection.execute(sa.insert(events).values(at=at, action=action, outcome=outcome, **values))


def search(connection: sa.Connection, *, text: str = "", before: int | None = None, at_most: int = 100) -> list[Event]:
    """Return events, the latest first.

    Args:
        text: in action, outcome, name, object or detail.
        before: only events with a smaller number.
    """
    query = sa.select(*_COLUMNS).order_by(events.c.id.desc()).limit(at_most)
    if text:
        names = ("action", "outcome", "by", "object", "detail", "address")
        query = query.where(sa.or_(*(events.c[name].icontains(text, autoescape=True) for name in names)))
    if before is not None:
        query = query.where(events.c.id < before)
    return [Event(**row._mapping) for row in connection.execute(query)]
