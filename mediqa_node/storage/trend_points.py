"""Points of the trends: what the courier makes of series that have changed."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.quantities import QUANTITIES
from mediqa_node.domain.series import ReasonCode, SeriesState
from mediqa_node.domain.trends import ChartState, MeasuredValue, Source, Stratum, Value
from mediqa_node.storage import backscores
from mediqa_node.storage.backscores import BackScore
from mediqa_node.storage.measure_tables import measured_stacks, measures
from mediqa_node.storage.tables import series as series_table
from mediqa_node.storage.tables import techniques
from mediqa_node.storage.trend_tables import trend_charts, trend_cursors, trend_points, trend_strata
from mediqa_node.storage.workbench_tables import worklist

_STRATUM = tuple(Stratum.__dataclass_fields__)
_NOT_OF_PATIENTS = (ReasonCode.PHANTOM, ReasonCode.REJECTED)
_UNDER_WAY = (SeriesState.RECEIVING, SeriesState.READY)
_LENGTHS = {"size_class": 32, "reconstruction": 128, "stack": 200, "limit_code": 32, "basis": 80}
_DLP = "dlp_mgy_cm"


def is_behind(connection: sa.Connection) -> bool:
    """Return whether an entry of the worklist has changed since its points were made."""
    newest = sa.select(sa.func.max(worklist.c.change)).scalar_subquery()
    query = sa.select(sa.func.coalesce(newest, 0) > trend_cursors.c.change).where(trend_cursors.c.id == 1)
    return bool(connection.execute(query).scalar_one())


def cursor(connection: sa.Connection) -> int:
    """Return the change of the worklist up to which points were made."""
    return int(connection.execute(sa.select(trend_cursors.c.change).where(trend_cursors.c.id == 1)).scalar_one())


def move_cursor(connection: sa.Connection, change: int) -> None:
    """Note that the points of all entries up to a change were made."""
    connection.execute(sa.update(trend_cursors).where(trend_cursors.c.id == 1).values(change=change))


def changed(connection: sa.Connection, after: int, *, at_most: int) -> tuple[int, list[Source]]:
    """Return the last change of the next entries, and what is stored about them; `after` and [] if there is none.

    A series that is being received, or whose images count no more, has no values: its points are taken away. The score
    of a series is its newest, also where that is kept alongside the reported one: after a promotion, a back-scored
    archive and new series are of the same weights.
    """
    query = (
        sa.select(worklist, series_table.c.generation.label("present"), series_table.c.reason_code.label("code"))
        .outerjoin(series_table, series_table.c.series_instance_uid == worklist.c.series_instance_uid)
        .where(worklist.c.change > after)
        .order_by(worklist.c.change)
        .limit(at_most)
    )
    rows = connection.execute(query).all()
    if not rows:
        return after, []
    uids = [row.series_instance_uid for row in rows]
    stacks = _stacks(connection, uids)
    found = _measures(connection, uids)
    doses = _doses(connection, uids)
    alongside = backscores.alongside(connection, uids)
    studies = _studies(connection, {row.study_instance_uid for row in rows})
    sources = [
        _source(
            row,
            stacks.get((row.series_instance_uid, row.present)),
            found.get((row.series_instance_uid, row.present), []),
            doses.get(row.series_instance_uid),
            alongside.get((row.series_instance_uid, row.present, row.revision)),
            studies[row.study_instance_uid],
        )
        for row in rows
    ]
    return rows[-1].change, sources


_Row = sa.Row[*tuple[Any, ...]]


def _source(
    row: _Row,
    stack: _Row | None,
    measured: list[MeasuredValue],
    dlp_mgy_cm: float | None,
    newer: BackScore | None,
    study: int,
) -> Source:
    counts = row.present is not None and row.code not in _NOT_OF_PATIENTS and row.state not in _UNDER_WAY
    score, weights, trained = (
        (newer.quality, newer.weights_sha256, newer.trained)
        if newer is not None
        else (row.score, row.weights_sha256, row.trained)
    )
    scored = counts and trained and score is not None
    predicted = (row.predicted_low, row.predicted_high) if row.predicted_low is not None else None
    return Source(
        series=row.id,
        study=study,
        modality=row.modality,
        scanner=row.scanner,
        protocol=row.protocol or row.description,
        acquired=row.acquired,
        received_at=row.received_at,
        score=score if scored else None,
        weights=weights,
        predicted=predicted if counts and row.trained and row.score is not None else None,
        recorded=row.recorded if counts else None,
        size_class=stack.size_class if stack is not None else "",
        kernel=stack.kernel if stack is not None else "",
        recon_class=stack.recon_class if stack is not None else "",
        thickness_mm=stack.thickness_mm if stack is not None else None,
        stack=stack.stack if stack is not None else "",
        ctdi_vol_mgy=stack.ctdi_vol_mgy if counts and stack is not None else None,
        ctdi_phantom_cm=stack.ctdi_phantom_cm if stack is not None else None,
        dlp_mgy_cm=dlp_mgy_cm if counts else None,
        measures=measured if counts else [],
    )


def _stacks(connection: sa.Connection, uids: list[str]) -> dict[tuple[str, int], _Row]:
    names = ("series_instance_uid", "generation", "size_class", "kernel", "recon_class", "thickness_mm", "stack",
             "ctdi_vol_mgy", "ctdi_phantom_cm")  # fmt: skip
    query = sa.select(*(measured_stacks.c[name] for name in names))
    rows = connection.execute(query.where(measured_stacks.c.series_instance_uid.in_(uids)))
    return {(row.series_instance_uid, row.generation): row for row in rows}


def _measures(connection: sa.Connection, uids: list[str]) -> dict[tuple[str, int], list[MeasuredValue]]:
    query = sa.select(measures).where(measures.c.series_instance_uid.in_(uids), measures.c.value.is_not(None))
    found: dict[tuple[str, int], list[MeasuredValue]] = {}
    for row in connection.execute(query):
        if row.name in QUANTITIES:
            method = f"{row.method}, version {row.method_version}"
            one = MeasuredValue(name=row.name, value=row.value, method=method, limit=row.limit_code or "")
            found.setdefault((row.series_instance_uid, row.generation), []).append(one)
    return found


def _doses(connection: sa.Connection, uids: list[str]) -> dict[str, float]:
    """Return the dose length product of each series whose images state it, mGy cm."""
    value = techniques.c.technique["covariates"][_DLP].as_string()
    query = sa.select(techniques.c.series_instance_uid, value.label("dlp"))
    rows = connection.execute(query.where(techniques.c.series_instance_uid.in_(uids)))
    return {row.series_instance_uid: float(row.dlp) for row in rows if row.dlp is not None}


def _studies(connection: sa.Connection, uids: Iterable[str]) -> dict[str, int]:
    query = (
        sa.select(worklist.c.study_instance_uid, sa.func.min(worklist.c.id).label("first"))
        .where(worklist.c.study_instance_uid.in_(sorted(uids)))
        .group_by(worklist.c.study_instance_uid)
    )
    return {row.study_instance_uid: row.first for row in connection.execute(query)}


class PointWriter:
    """Writes the points of series, and finds charts and strata by what they are; one for a transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self.chart = lru_cache(maxsize=None)(self._chart)
        self.stratum = lru_cache(maxsize=None)(self._stratum)

    def replace(self, source: Source, at: float, values: Iterable[Value]) -> bool:
        """Replace the points of a series; return whether any has changed."""
        chart = (source.modality[:16], source.scanner[:64], source.protocol[:64])
        wanted = {}
        for one in values:
            chart_id = self.chart(*chart, one.quantity)
            wanted[chart_id] = (self.stratum(chart_id, one.stratum), source.study, at, one.value)
        columns = [trend_points.c[name] for name in ("chart_id", "stratum_id", "study", "at", "value")]
        here = trend_points.c.series == source.series
        present = {row[0]: tuple(row[1:]) for row in self._connection.execute(sa.select(*columns).where(here))}
        if wanted == present:
            return False
        self._connection.execute(sa.delete(trend_points).where(here))
        rows = [
            {"series": source.series, "chart_id": chart_id, "stratum_id": of[0], "study": of[1], "at": of[2],
             "value": of[3]}
            for chart_id, of in wanted.items()
        ]  # fmt: skip
        if rows:
            self._connection.execute(sa.insert(trend_points), rows)
        due = sa.update(trend_charts).where(trend_charts.c.id.in_({*wanted, *present}))
        self._connection.execute(due.values(changes=trend_charts.c.changes + 1))
        return True

    def _chart(self, modality: str, scanner: str, protocol: str, quantity: str) -> int:
        key = {"modality": modality, "scanner": scanner, "protocol": protocol, "quantity": quantity}
        here = sa.select(trend_charts.c.id).where(*(trend_charts.c[name] == value for name, value in key.items()))
        found = self._connection.execute(here).scalar_one_or_none()
        if found is None:
            new = sa.insert(trend_charts).values(
                **key, changes=0, judged_changes=0, state=ChartState.NONE, false_rate=0.0, recent=[]
            )
            found = self._connection.execute(new.returning(trend_charts.c.id)).scalar_one()
        return int(found)

    def _stratum(self, chart_id: int, stratum: Stratum) -> int:
        values = {name: getattr(stratum, name) for name in _STRATUM}
        values |= {name: values[name][:length] for name, length in _LENGTHS.items()}
        same = [trend_strata.c[name].is_not_distinct_from(value) for name, value in values.items()]
        here = sa.select(trend_strata.c.id).where(trend_strata.c.chart_id == chart_id, *same)
        found = self._connection.execute(here).scalar_one_or_none()
        if found is None:
            new = sa.insert(trend_strata).values(chart_id=chart_id, **values)
            found = self._connection.execute(new.returning(trend_strata.c.id)).scalar_one()
        return int(found)
