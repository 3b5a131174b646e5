"""Forwards of further copies of an instance, which are held until the copies are compared or somebody has decided."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.forward import ForwardReason, ForwardState
from mediqa_node.domain.series import InstanceStatus, parse_state
from mediqa_node.storage.forward_tables import forwards
from mediqa_node.storage.forwards import JOINED
from mediqa_node.storage.tables import instances

_AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A held forward whose copy was compared, or decided about.

    Attributes:
        copy: what has become of the copy.
        is_served: the destination has, or gets, another copy of the same instance.
        is_same: another copy of the instance has the same content.
    """

    id: int
    destination: str
    sop_instance_uid: str
    reason_code: str | None
    copy: InstanceStatus | str
    is_served: bool
    is_same: bool


def _settled() -> sa.Select[*tuple[Any, ...]]:
    other, theirs = forwards.alias(), instances.alias()
    twin = instances.alias()
    served = sa.exists().where(
        other.c.instance_id == theirs.c.id,
        theirs.c.sop_instance_uid == instances.c.sop_instance_uid,
        other.c.destination == forwards.c.destination,
        other.c.id != forwards.c.id,
        other.c.state.in_((ForwardState.WAITING, ForwardState.SENT, ForwardState.CONFIRMED, ForwardState.PARKED)),
    )
    same = sa.exists().where(
        twin.c.sop_instance_uid == instances.c.sop_instance_uid,
        twin.c.id != instances.c.id,
        twin.c.content_digest == instances.c.content_digest,
    )
    disputed = sa.case(
        (instances.c.status == InstanceStatus.DISPUTED, ForwardReason.OTHER_IDENTITY.value),
        (instances.c.status == InstanceStatus.CONFLICT, ForwardReason.OTHER_PIXELS.value),
        else_="",
    )
    return (
        sa.select(
            forwards.c.id,
            forwards.c.destination,
            forwards.c.reason_code,
            instances.c.sop_instance_uid,
            instances.c.status.label("copy"),
            served.label("is_served"),
            same.label("is_same"),
        )
        .select_from(JOINED)
        .where(
            sa.text("forwards.state IN ('held', 'parked')"),
            forwards.c.state == ForwardState.HELD,
            instances.c.status != InstanceStatus.CANDIDATE,
            sa.func.coalesce(forwards.c.reason_code, "") != disputed,
        )
        .order_by(forwards.c.id)
        .limit(_AT_ONCE)
    )


_SETTLED = _settled()
"""Built once: it is asked for twice a second."""


def settled_copies(connection: sa.Connection) -> list[Settled]:
    """Return held forwards whose copies are no candidates any more, some at a time, the oldest first."""
    rows = [row._mapping for row in connection.execute(_SETTLED)]
    return [Settled(**{**row, "copy": parse_state(InstanceStatus, row["copy"])}) for row in rows]


def replaced(connection: sa.Connection, destination: str, sop_instance_uids: Collection[str]) -> list[int]:
    """Return the unsent forwards to a destination of copies that a correction has replaced there."""
    query = (
        sa.select(forwards.c.id)
        .select_from(JOINED)
        .where(
            forwards.c.destination == destination,
            forwards.c.state.in_((ForwardState.WAITING, ForwardState.PARKED)),
            instances.c.status == InstanceStatus.SUPERSEDED,
            instances.c.sop_instance_uid.in_(list(sop_instance_uids)),
        )
    )
    return list(connection.execute(query).scalars())
