"""Measured quantities: one row for a stack and its context, one for each measure."""

import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.images import FrameRef
from mediqa_node.domain.measures import Limit, Measure, MeasuredStack, Method, Validity
from mediqa_node.domain.quantities import in_order
from mediqa_node.domain.series import ReasonCode
from mediqa_node.storage.database import take_table
from mediqa_node.storage.measure_tables import measured_stacks, measures
from mediqa_node.storage.tables import series

_CONTEXT = tuple(
    name
    for name in MeasuredStack.__dataclass_fields__
    if name not in ("measures", "frames", "scanner", "protocol", "stack", "kernel")
)
_SHORTENED = {"scanner": 64, "protocol": 64, "stack": 200, "kernel": 64}
_AS_THEY_ARE = ("name", "value", "unit", "uncertainty", "spread", "n", "detail")
_AT_ONCE = 500
_COUNT_NOT = (ReasonCode.PHANTOM, ReasonCode.REJECTED)


def save(connection: sa.Connection, measured: MeasuredStack, *, generation: int) -> None:
    """Replace the measures of a series as it was at a generation of its content."""
    take_table(connection, measured_stacks)
    key = {"series_instance_uid": measured.series_instance_uid, "generation": generation}
    for table in (measured_stacks, measures):
        here = (table.c[name] == value for name, value in key.items())
        connection.execute(sa.delete(table).where(*here))
    context = {name: getattr(measured, name) for name in _CONTEXT}
    context |= {name: getattr(measured, name)[:size] for name, size in _SHORTENED.items()}
    frames = [asdict(frame) for frame in measured.frames]
    connection.execute(sa.insert(measured_stacks).values(**context | key, frames=frames, measured_at=time.time()))
    if measured.measures:
        connection.execute(sa.insert(measures), [_row(one) | key for one in measured.measures])


def load(connection: sa.Connection, series_instance_uid: str, generation: int | None = None) -> MeasuredStack | None:
    """Return the measures of a series as it was at a generation of its content, or the newest; None without any."""
    query = sa.select(measured_stacks).where(measured_stacks.c.series_instance_uid == series_instance_uid)
    if generation is not None:
        query = query.where(measured_stacks.c.generation == generation)
    rows = connection.execute(query.order_by(measured_stacks.c.generation.desc()).limit(1)).all()
    return next(iter(_with_measures(connection, rows)), None)


def newest(
    connection: sa.Connection, *, since: float = 0.0, until: float = float("inf"), modality: str | None = None
) -> list[MeasuredStack]:
    """Return the measures of every series' present content that was measured in a period, in the order of measurement.

    Phantoms, and series whose content has changed or was rejected since, do not count.

    Args:
        since, until: seconds since 1970, the second not included.
    """
    present = sa.and_(
        series.c.series_instance_uid == measured_stacks.c.series_instance_uid,
        series.c.generation == measured_stacks.c.generation,
        sa.or_(series.c.reason_code.is_(None), series.c.reason_code.not_in(_COUNT_NOT)),
    )
    query = sa.select(measured_stacks).join(series, present).where(measured_stacks.c.measured_at >= since)
    if until != float("inf"):
        query = query.where(measured_stacks.c.measured_at < until)
    if modality is not None:
        query = query.where(measured_stacks.c.modality == modality)
    rows = connection.execute(query.order_by(measured_stacks.c.measured_at, measured_stacks.c.series_instance_uid))
    return _with_measures(connection, rows.all())


def _with_measures(connection: sa.Connection, rows: Iterable[sa.Row[*tuple[Any, ...]]]) -> list[MeasuredStack]:
    stacks = list(rows)
    found: dict[tuple[str, int], list[Measure]] = {}
    for start in range(0, len(stacks), _AT_ONCE):
        uids = [row.series_instance_uid for row in stacks[start : start + _AT_ONCE]]
        for row in connection.execute(sa.select(measures).where(measures.c.series_instance_uid.in_(uids))):
            found.setdefault((row.series_instance_uid, row.generation), []).append(_measure(row))
    return [
        MeasuredStack(
            **{name: row._mapping[name] for name in (*_CONTEXT, *_SHORTENED)},
            measures=in_order(found.get((row.series_instance_uid, row.generation), ())),
            frames=tuple(FrameRef(**frame) for frame in row.frames),
        )
        for row in stacks
    ]


def _row(one: Measure) -> dict[str, Any]:
    return {
        **{name: getattr(one, name) for name in _AS_THEY_ARE},
        "validity": one.validity,
        "limit_code": one.limit,
        "method": one.method.name,
        "method_version": one.method.version,
        "citation": one.method.citation,
    }


def _measure(row: sa.Row[*tuple[Any, ...]]) -> Measure:
    return Measure(
        **{name: row._mapping[name] for name in _AS_THEY_ARE},
        validity=Validity(row.validity),
        limit=Limit(row.limit_code) if row.limit_code is not None else None,
        method=Method(name=row.method, version=row.method_version, citation=row.citation),
    )
