"""What pages read of the trends: lists of charts, values of a period, doses, and a candidate's scores."""

from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from mediqa_node.domain.promotion import Weights
from mediqa_node.domain.trends import CHARTED, CTDI, DLP, NOISE, SSDE
from mediqa_node.domain.worklist import ALARMS
from mediqa_node.storage.tables import series, shadow_scores
from mediqa_node.storage.trend_charts import Chart, chart_of, conditions
from mediqa_node.storage.trend_tables import trend_charts, trend_points, trend_strata
from mediqa_node.storage.workbench_tables import worklist

_CHART = [trend_charts.c[name] for name in Chart.__dataclass_fields__]
NEWEST_OF_CHART = 1_000
_ORDER = {name: place for place, name in enumerate(CHARTED)}


def charts(connection: sa.Connection, *, at_most: int, **wanted: str) -> list[Chart]:
    """Return charts by scanner, protocol and the order of quantities."""
    query = sa.select(*_CHART).where(*conditions(wanted), trend_charts.c.last_at.is_not(None))
    found = [chart_of(row) for row in connection.execute(query.order_by(*_CHART[1:4], trend_charts.c.id))]
    found.sort(key=lambda one: (one.scanner, one.protocol, _ORDER.get(one.quantity, len(_ORDER))))
    return found[:at_most]


def totals(connection: sa.Connection, **wanted: str) -> dict[str, int]:
    """Return the number of charts by state."""
    query = sa.select(trend_charts.c.state, sa.func.count().label("n")).where(
        *conditions(wanted), trend_charts.c.last_at.is_not(None)
    )
    return {row.state: int(row.n) for row in connection.execute(query.group_by(trend_charts.c.state))}


def choices(connection: sa.Connection) -> dict[str, list[str]]:
    """Return the scanners, protocols and quantities that have charts."""
    found = {}
    for name in ("scanner", "protocol", "quantity"):
        column = trend_charts.c[name]
        found[name] = [
            str(value) for value in connection.execute(sa.select(column).distinct().order_by(column)).scalars()
        ]
    found["quantity"].sort(key=lambda name: _ORDER.get(name, len(_ORDER)))
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Values:
    """The values of a quantity on one scanner in a period, one a study; arrays of shape (n,)."""

    scanner: str
    at: np.ndarray
    value: np.ndarray
    series: np.ndarray


def values_by_scanner(
    connection: sa.Connection, quantity: str, *, protocol: str, since: float, until: float, size_class: str = "",
    at_most: int = 20_000,
) -> list[Values]:  # fmt: skip
    """Return the newest values of a quantity for each scanner, by name.

    Args:
        size_class: only patients of this band; "" for all.
    """
    query = (
        sa.select(trend_charts.c.scanner, *(trend_points.c[name] for name in ("study", "at", "value", "series")))
        .join(trend_charts, trend_charts.c.id == trend_points.c.chart_id)
        .where(
            trend_charts.c.quantity == quantity,
            trend_charts.c.protocol == protocol,
            trend_points.c.at >= since,
            trend_points.c.at < until,
        )
        .order_by(trend_points.c.at.desc())
        .limit(at_most)
    )
    if size_class:
        strata = sa.select(trend_strata.c.id).where(trend_strata.c.size_class == size_class)
        query = query.where(trend_points.c.stratum_id.in_(strata))
    studies: dict[str, dict[int, tuple[float, float, int]]] = {}
    for scanner, study, at, value, number in connection.execute(query):
        studies.setdefault(scanner, {}).setdefault(study, (at, value, number))
    found = []
    for scanner, rows in sorted(studies.items()):
        table = np.array(sorted(rows.values()))
        found.append(Values(scanner=scanner, at=table[:, 0], value=table[:, 1], series=table[:, 2].astype(np.int64)))
    return found


def size_classes(connection: sa.Connection, quantity: str, protocol: str) -> list[str]:
    """Return the classes of size that a quantity has values in."""
    query = (
        sa.select(trend_strata.c.size_class)
        .join(trend_charts, trend_charts.c.id == trend_strata.c.chart_id)
        .where(trend_charts.c.quantity == quantity, trend_charts.c.protocol == protocol)
        .distinct()
        .order_by(trend_strata.c.size_class)
    )
    return [name for name in connection.execute(query).scalars() if name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dose:
    """Doses of one protocol, class of size and phantom; medians are None below the fewest exams.

    Attributes:
        n: exams, the one with most among the quantities.
        medians: of CTDIvol (mGy), DLP (mGy cm) and SSDE (mGy), by name; `n_of`: exams of each.
    """

    protocol: str
    size_class: str
    phantom_cm: float | None
    n: int
    medians: dict[str, float | None]
    n_of: dict[str, int]


def doses(
    connection: sa.Connection, *, since: float, until: float, fewest: int, scanner: str = "", protocol: str = ""
) -> list[Dose]:
    """Return the median doses of a period; of several series of one exam the largest value counts.

    Of each scanner and protocol the newest 1,000 series count, which is plenty for a median.

    SSDE has no phantom of its own: it goes with the phantom of the CTDIvol of the same series.
    """
    wanted = [trend_charts.c[name] == value for name, value in (("scanner", scanner), ("protocol", protocol)) if value]
    of_charts = sa.select(trend_charts.c.id, trend_charts.c.protocol, trend_charts.c.quantity).where(
        trend_charts.c.quantity.in_((CTDI, DLP, SSDE)), *wanted
    )
    charts_ = {row.id: (row.protocol, row.quantity) for row in connection.execute(of_charts)}
    of_strata = sa.select(trend_strata.c.id, trend_strata.c.size_class, trend_strata.c.phantom_cm)
    in_charts = trend_strata.c.chart_id.in_(charts_)
    strata = {row.id: (row.size_class, row.phantom_cm) for row in connection.execute(of_strata.where(in_charts))}
    columns = [trend_points.c[name] for name in ("chart_id", "stratum_id", "series", "study", "value")]
    query = sa.select(*columns).where(trend_points.c.at >= since, trend_points.c.at < until)
    newest = query.order_by(trend_points.c.at.desc()).limit(NEWEST_OF_CHART)
    rows = [row for number in charts_ for row in connection.execute(newest.where(trend_points.c.chart_id == number))]
    phantoms = {number: strata[stratum][1] for chart, stratum, number, _, _ in rows if charts_[chart][1] == CTDI}
    exams: dict[tuple[str, str, float | None, str], dict[int, float]] = {}
    for chart, stratum, number, study, value in rows:
        name, quantity = charts_[chart]
        group = exams.setdefault((name, strata[stratum][0], phantoms.get(number), quantity), {})
        group[study] = max(value, group.get(study, 0.0))
    return _doses(exams, fewest)


def _doses(exams: dict[tuple[str, str, float | None, str], dict[int, float]], fewest: int) -> list[Dose]:
    found = []
    for protocol, size, phantom in sorted({key[:3] for key in exams}, key=lambda key: (*key[:2], key[2] or 0.0)):
        of = {name: list(exams.get((protocol, size, phantom, name), {}).values()) for name in (CTDI, DLP, SSDE)}
        found.append(
            Dose(
                protocol=protocol,
                size_class=size,
                phantom_cm=phantom,
                n=max(map(len, of.values())),
                medians={name: float(np.median(v)) if len(v) >= fewest else None for name, v in of.items()},
                n_of={name: len(v) for name, v in of.items()},
            )
        )
    return found


def noise_and_dose(
    connection: sa.Connection, *, protocol: str, since: float, until: float, at_most: int = 4_000
) -> list[tuple[str, str, float, float, int]]:
    """Return scanner, class of size, SSDE in mGy, noise in HU and number of the newest series that have both."""
    noise, dose = trend_points.alias("noise"), trend_points.alias("dose")
    of_noise, of_dose = trend_charts.alias("of_noise"), trend_charts.alias("of_dose")
    query = (
        sa.select(of_noise.c.scanner, trend_strata.c.size_class, dose.c.value, noise.c.value, noise.c.series)
        .select_from(of_noise)
        .join(noise, noise.c.chart_id == of_noise.c.id)
        .join(trend_strata, trend_strata.c.id == noise.c.stratum_id)
        .join(dose, dose.c.series == noise.c.series)
        .join(of_dose, of_dose.c.id == dose.c.chart_id)
        .where(
            of_noise.c.quantity == NOISE,
            of_noise.c.protocol == protocol,
            of_dose.c.quantity == SSDE,
            noise.c.at >= since,
            noise.c.at < until,
        )
        .order_by(noise.c.at.desc())
        .limit(at_most)
    )
    return [(str(a), str(b), float(c), float(d), int(e)) for a, b, c, d, e in connection.execute(query)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadowed:
    """A series that the candidate has scored as well, 0..1; `candidate` is None where it has no score."""

    station_name: str
    modality: str
    quality: float
    candidate: float | None
    verdict: str
    candidate_verdict: str | None
    scored_at: float


def shadowed(connection: sa.Connection, candidate: Weights, *, at_most: int) -> list[Shadowed]:
    """Return the newest scores of a candidate for the latest revision of series."""
    latest = (series.c.series_instance_uid == shadow_scores.c.series_instance_uid) & (
        series.c.revision == shadow_scores.c.revision
    )
    names = ("station_name", "modality", "quality", "verdict", "candidate_verdict", "scored_at")
    query = (
        sa.select(*(shadow_scores.c[name] for name in names), shadow_scores.c.candidate_quality.label("candidate"))
        .join(series, latest)
        .where(
            shadow_scores.c.candidate_sha256 == candidate.sha256,
            shadow_scores.c.candidate_card_sha256 == candidate.card_sha256,
        )
        .order_by(shadow_scores.c.scored_at.desc())
        .limit(at_most)
    )
    return [Shadowed(**row._mapping) for row in connection.execute(query)]


def received_by_scanner(connection: sa.Connection, *, since: float, until: float) -> dict[str, tuple[int, int]]:
    """Return how many series of each scanner were received in a period, and how many of them the node alarmed.

    Those that were pulled from an archive were not made in the period.
    """
    alarms = sa.func.count().filter(worklist.c.category.in_(ALARMS))
    query = (
        sa.select(worklist.c.scanner, sa.func.count().label("n"), alarms.label("n_alarms"))
        .outerjoin(series, series.c.series_instance_uid == worklist.c.series_instance_uid)
        .where(worklist.c.received_at >= since, worklist.c.received_at < until, series.c.pulled.is_not(True))
        .group_by(worklist.c.scanner)
    )
    return {row.scanner: (int(row.n), int(row.n_alarms)) for row in connection.execute(query)}


def busiest_protocol(connection: sa.Connection, quantity: str) -> str:
    """Return the protocol that most scanners have charts of a quantity for; "" without any."""
    n = sa.func.count()
    query = sa.select(trend_charts.c.protocol).where(
        trend_charts.c.quantity == quantity, trend_charts.c.last_at.is_not(None)
    )
    ordered = query.group_by(trend_charts.c.protocol).order_by(n.desc(), trend_charts.c.protocol).limit(1)
    return connection.execute(ordered).scalar_one_or_none() or ""
