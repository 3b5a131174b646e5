"""Synthetic scanners for trends: series with scores, measures and doses, written as the node would have.

`PYTHONPATH=.:tests python -m support.trend_cases FILE [N]` fills a database for a look at the pages.
"""

import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from mediqa_node.domain.trends import MeasuredValue, Source, Value, values_of
from mediqa_node.storage.database import Database
from mediqa_node.storage.measure_tables import measured_stacks, measures
from mediqa_node.storage.tables import constancy_checks, phantom_measurements, promotions, shadow_scores, techniques
from mediqa_node.storage.tables import series as series_table
from mediqa_node.storage.trend_points import PointWriter
from mediqa_node.storage.trend_tables import trend_charts, trend_cursors, trend_points
from mediqa_node.storage.workbench_tables import answers, worklist
from support.workbench import EMPTY_ENTRY

DAY = 86_400.0
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
SIZES = ("Dw 200-240 mm", "Dw 240-280 mm", "Dw 280-320 mm", "Dw 320-360 mm")
WEIGHTS = "a" * 64
METHOD = "mode of local SD, version 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """A CT and one of its protocols; what happens to it is given as functions of the share of time, 0..1.

    Attributes:
        mix: share of each class of size.
        score_step: added to the score, in standard deviations of it.
    """

    name: str = "CT_1"
    protocol: str = "Abdomen routine"
    n: int = 300
    days: float = 120.0
    dose_mgy: float = 9.0
    mix: Callable[[float], Sequence[float]] = field(default=lambda _: (0.1, 0.35, 0.35, 0.2))
    score_step: Callable[[float], float] = field(default=lambda _: 0.0)
    noise_factor: Callable[[float], float] = field(default=lambda _: 1.0)
    weights: Callable[[float], str] = field(default=lambda _: WEIGHTS)


def sources(scanner: Scanner, *, first: int = 1, seed: int = 1, until: float = NOW) -> list[Source]:
    """Return the series of a scanner, oldest first, numbered from `first`; a study each."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(scanner.n):
        share = i / max(1, scanner.n - 1)
        size = int(rng.choice(len(SIZES), p=scanner.mix(share)))
        at = until - scanner.days * DAY * (1 - share)
        ctdi = scanner.dose_mgy * math.exp(0.28 * (size - 1.5) + rng.normal(0, 0.08))
        noise = 11.0 * scanner.noise_factor(share) * math.exp(0.12 * (size - 1.5) + rng.normal(0, 0.09))
        score = 0.74 - 0.05 * (size - 1.5) + 0.03 * (rng.normal() + scanner.score_step(share))
        recorded = 18 * ctdi
        middle = recorded * math.exp(rng.normal(0, 0.15))
        dw = 200 + 40 * (size + rng.uniform())
        values = {
            "ct.noise.soft": noise,
            "ct.dw": dw,
            "ct.ssde": ctdi * (2.0 - 0.25 * size),
            "ct.sharpness": 0.36 + rng.normal(0, 0.015),
        }
        found.append(Source(
            series=first + i, study=first + i, modality="CT", scanner=scanner.name, protocol=scanner.protocol,
            acquired=datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S"), received_at=at + 90.0,
            score=float(np.clip(score, 0.0, 1.0)), weights=scanner.weights(share),
            predicted=(middle / 1.2, middle * 1.2), recorded=recorded,
            size_class=SIZES[size], kernel="Br40", recon_class="hybrid_ir", thickness_mm=3.0, stack="",
            ctdi_vol_mgy=ctdi, ctdi_phantom_cm=32.0, dlp_mgy_cm=ctdi * 42.0,
            measures=[
                MeasuredValue(name=name, value=float(value), method=METHOD, limit="") for name, value in values.items()
            ],
        ))  # fmt: skip
    return found


def _worklist(one: Source, *, category: str = "fine") -> dict[str, Any]:
    low, high = one.predicted or (None, None)
    return EMPTY_ENTRY | {
        "id": one.series, "series_instance_uid": f"1.2.{one.series}", "study_instance_uid": f"1.1.{one.study}",
        "change": one.series, "generation": 1, "revision": 1, "received_at": one.received_at,
        "last_image_at": one.received_at, "n_images": 90, "state": "DELIVERED", "category": category,
        "modality": one.modality, "scanner": one.scanner, "model": "Modelle", "protocol": one.protocol,
        "description": one.protocol, "series_number": 3, "sender": "CT", "accession_end": "0001",
        "acquired": one.acquired, "region": "abdomen", "type": "soft", "score": one.score, "trained": True,
        "weights_sha256": one.weights, "why": "", "why_more": "", "predicted_low": low, "predicted_high": high,
        "recorded": one.recorded, "unit": "mAs", "destination": "",
    }  # fmt: skip


def _series(one: Source) -> dict[str, Any]:
    return {
        "series_instance_uid": f"1.2.{one.series}", "study_instance_uid": f"1.1.{one.study}", "modality": one.modality,
        "state": "DELIVERED", "calling_ae_title": "CT", "association_id": "a", "n_associations": 1,
        "longest_gap_s": 0.0, "opened_at": one.received_at, "last_instance_at": one.received_at, "n_instances": 90,
        "generation": 1, "revision": 1, "state_at": one.received_at,
    }  # fmt: skip


def _stack(one: Source) -> dict[str, Any]:
    return {
        "series_instance_uid": f"1.2.{one.series}", "generation": 1, "study_instance_uid": f"1.1.{one.study}",
        "modality": one.modality, "scanner": one.scanner, "protocol": one.protocol, "stack": one.stack,
        "size_class": one.size_class, "kernel": one.kernel, "recon_class": one.recon_class,
        "thickness_mm": one.thickness_mm, "ctdi_vol_mgy": one.ctdi_vol_mgy, "ctdi_phantom_cm": one.ctdi_phantom_cm,
        "acquired": one.acquired, "frames": [], "measured_at": one.received_at,
    }  # fmt: skip


def _measures(one: Source) -> Iterable[dict[str, Any]]:
    for measure in one.measures:
        method, _, version = measure.method.partition(", version ")
        yield {
            "series_instance_uid": f"1.2.{one.series}", "generation": 1, "name": measure.name, "value": measure.value,
            "unit": "1", "n": 7, "validity": "valid", "detail": "", "method": method, "method_version": int(version),
            "citation": "",
        }  # fmt: skip


def write(connection: sa.Connection, found: Sequence[Source], *, measured: bool = True) -> None:
    """Write series as receiver, worker and courier leave them, for the sweep of trends to find."""
    connection.execute(sa.insert(series_table), [_series(one) for one in found])
    connection.execute(sa.insert(worklist), [_worklist(one) for one in found])
    if measured:
        connection.execute(sa.insert(measured_stacks), [_stack(one) for one in found])
        connection.execute(sa.insert(measures), [row for one in found for row in _measures(one)])
        connection.execute(sa.insert(techniques), [
            {"series_instance_uid": f"1.2.{one.series}", "eligible": True, "exclusions": [], "flags": [],
             "technique": {"covariates": {"dlp_mgy_cm": one.dlp_mgy_cm}}, "harvested_at": one.received_at}
            for one in found
        ])  # fmt: skip


def write_points(connection: sa.Connection, found: Sequence[Source]) -> None:
    """Write the worklist and the points that the sweep would make, many at once."""
    categories = ("fine",) * 17 + ("look", "look", "repeat")
    rows = [_worklist(one, category=categories[one.series * 7 % 20]) for one in found]
    connection.execute(sa.insert(worklist), rows)
    writer = PointWriter(connection)

    def row(one: Source, value: Value) -> dict[str, Any]:
        chart = writer.chart(one.modality, one.scanner, one.protocol, value.quantity)
        at = one.received_at - 90.0
        return {"series": one.series, "chart_id": chart, "stratum_id": writer.stratum(chart, value.stratum),
                "study": one.study, "at": at, "value": value.value}  # fmt: skip

    connection.execute(sa.insert(trend_points), [row(one, value) for one in found for value in values_of(one)])
    connection.execute(sa.update(trend_charts).values(changes=trend_charts.c.changes + 1))
    connection.execute(sa.update(trend_cursors).values(change=max(one.series for one in found)))


def site(n: int, *, days: float = 365.0) -> Iterable[list[Source]]:
    """Return the series of five scanners and four protocols; one protocol of one scanner has a tenth of them."""
    first = 1
    others = (n - n // 10) // 19
    for s in range(5):
        for p, protocol in enumerate(("Abdomen routine", "Chest low dose", "Head routine", "CAP oncology")):
            late = (s, p) in ((0, 0), (2, 1))
            one = Scanner(
                name=f"CT_{s + 1}", protocol=protocol, n=n // 10 if s == p == 0 else others, days=days,
                dose_mgy=(9.0, 2.5, 45.0, 8.0)[p] * (1 + 0.08 * s),
                score_step=(lambda share: -1.6 if share > 0.985 else 0.0) if late else (lambda _: 0.0),
                noise_factor=(lambda share: 1.25 if share > 0.99 else 1.0) if (s, p) == (3, 2) else (lambda _: 1.0),
            )  # fmt: skip
            yield sources(one, first=first, seed=10 * s + p)
            first += one.n


def seed(database: Database, n: int) -> None:
    """Fill a database with the series of a site, and judge its charts."""
    from mediqa_node.pipeline.trends import TrendSweep

    for found in site(n):
        with database.write() as connection:
            write_points(connection, found)
    sweep = TrendSweep(database, time_zone=UTC, clock=lambda: NOW)
    while sweep.run():
        pass


def add_around(database: Database, *, seed: int = 3) -> None:
    """Add what the other pages show: answers, a candidate's scores, constancy checks, phantoms and an event."""
    rng = np.random.default_rng(seed)
    with database.write() as connection:
        newest = sa.select(worklist).where(sa.or_(worklist.c.category != "fine", worklist.c.id % 50 == 0))
        rows = connection.execute(newest.order_by(worklist.c.id % 97).limit(1500)).all()
        connection.execute(sa.insert(answers), [_answer(row, rng) for row in rows])
        connection.execute(sa.insert(promotions), [
            {"at": NOW - 40 * DAY, "by": "physicist", "action": "shadow", "reason": "trial", "to_name": "t17",
             "to_sha256": "b" * 64, "to_card_sha256": "c" * 64},
        ])  # fmt: skip
        shadowed = rows[:600]
        known = set(connection.execute(sa.select(series_table.c.series_instance_uid)).scalars())
        missing = [row for row in shadowed if row.series_instance_uid not in known]
        if missing:
            connection.execute(sa.insert(series_table), [
                {"series_instance_uid": row.series_instance_uid, "study_instance_uid": row.study_instance_uid,
                 "modality": "CT", "state": "DELIVERED", "calling_ae_title": "CT", "association_id": "a",
                 "n_associations": 1, "longest_gap_s": 0.0, "opened_at": row.received_at,
                 "last_instance_at": row.received_at, "n_instances": 9, "generation": 1, "revision": 1,
                 "state_at": row.received_at} for row in missing
            ])  # fmt: skip
        connection.execute(sa.insert(shadow_scores), [
            {"series_instance_uid": row.series_instance_uid, "revision": 1, "candidate_sha256": "b" * 64,
             "candidate_card_sha256": "c" * 64, "candidate_name": "t17",
             "candidate_quality": float(np.clip(row.score + 0.01 + rng.normal(0, 0.02), 0, 1)),
             "candidate_verdict": "acceptable", "weights_sha256": WEIGHTS, "quality": row.score,
             "verdict": "acceptable" if rng.uniform() < 0.9 else "borderline", "station_name": row.scanner,
             "modality": "CT", "scored_at": row.received_at + 60} for row in shadowed
        ])  # fmt: skip
        connection.execute(sa.insert(constancy_checks), [_check(day, rng) for day in range(40)])
        connection.execute(sa.insert(phantom_measurements), [
            {"series_instance_uid": f"1.9.{day}", "modality": "CT", "station_name": "CT_1", "rule": "water daily",
             "acquired_at": datetime.fromtimestamp(NOW - (60 - day) * DAY, UTC).strftime("%Y-%m-%d %H:%M:%S"),
             "mean": float(rng.normal(0.4, 0.3)), "noise": float(rng.normal(4.9, 0.1)),
             "uniformity": float(rng.normal(1.5, 0.2)), "measurement": {}, "measured_at": NOW - (60 - day) * DAY}
            for day in range(60)
        ])  # fmt: skip


def _check(day: int, rng: np.random.Generator) -> dict[str, Any]:
    drifted = day == 26
    return {
        "checked_at": NOW - (40 - day) * DAY, "software_version": "0.3.0" if day > 25 else "0.2.0",
        "weights_sha256": WEIGHTS, "execution": "cpu fp32", "libraries": "torch", "scores": {}, "expected": {},
        "compared_with": "card", "drift": 3e-4 if drifted else float(10 ** rng.normal(-6.4, 0.25)), "bound": 1e-4,
        "passed": not drifted, "refusals": {}, "made_by": "worker",
    }  # fmt: skip


def _answer(row: Any, rng: np.random.Generator) -> dict[str, Any]:
    category = row.category
    chances = {"repeat": (0.55, 0.3, 0.15), "look": (0.15, 0.6, 0.25), "fine": (0.25, 0.75, 0.0)}[category]
    kind = str(rng.choice(("repeated", "kept", "wrong_alarm"), p=chances))
    reason = str(rng.choice(("motion", "positioning", "contrast timing", ""))) if kind == "repeated" else ""
    return {
        "series_instance_uid": row.series_instance_uid, "revision": 1, "kind": kind, "reason": reason, "by": "CT 1",
        "initials": "AB", "role": "technologist", "at": row.received_at + 300, "category": category,
        "score": row.score, "why": "", "scanner": row.scanner, "protocol": row.protocol, "modality": "CT",
    }  # fmt: skip


if __name__ == "__main__":
    from mediqa_node.storage.migrate import upgrade

    path, number = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    kept = Database(f"sqlite:///{path}")
    upgrade(kept)
    before = time.monotonic()
    seed(kept, number)
    add_around(kept)
    sys.stdout.write(f"{number} series seeded in {time.monotonic() - before:.0f} s\n")
