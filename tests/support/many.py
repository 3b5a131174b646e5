"""A database with as many series as a department has in years, made from a few real ones by copying their rows."""

import random
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_TABLES = ("series", "instances", "worklist", "assessments", "techniques", "deliveries", "measured_stacks", "measures")
_DAY_S = 86_400.0


def multiply(
    database: Path,
    n: int,
    *,
    now: float,
    days: int = 365,
    scanners: int = 8,
    seed: int = 7,
    images: tuple[int, int] = (1, 1),
) -> None:
    """Fill a SQLite database up to about n series, spread over the days before now.

    Scores, values of measures, scanners, protocols, answers and times vary; everything else is that of the originals.

    Args:
        images: the least and the most instances of a series, each series on an association of its own.
    """
    connection = sqlite3.connect(database, timeout=60)
    connection.execute("PRAGMA synchronous=OFF")
    originals = [row[0] for row in connection.execute("SELECT series_instance_uid FROM worklist ORDER BY id")]
    kept = {table: _rows(connection, table) for table in _TABLES}
    kept["associations"] = _rows(connection, "associations", by="last_series_uid")
    rng = random.Random(seed)
    for trigger in ("series_added", "series_changed", "delivery_added", "delivery_changed"):
        connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
    for start in range(0, n, 5000):
        batch: dict[str, list[dict[str, Any]]] = {table: [] for table in kept}
        for i in range(start, min(n, start + 5000)):
            facts = _Facts(i, n, now, days, scanners, rng, images)
            for table, row in _copies(kept, originals[i % len(originals)], facts):
                batch[table].append(row)
        for table, rows in batch.items():
            _insert(connection, table, rows)
        connection.commit()
    connection.execute("ANALYZE")
    connection.commit()
    connection.close()


class _Facts:
    """What distinguishes one copy."""

    def __init__(
        self, i: int, n: int, now: float, days: int, scanners: int, rng: random.Random, images: tuple[int, int]
    ) -> None:
        self.i = i
        self.uid = f"2.25.9{i:012d}"
        self.association = f"{i:032x}"
        self.at = now - days * _DAY_S * (1 - i / n)
        self.scanner = f"ROOM_{rng.randrange(scanners)}"
        self.protocol = f"PROTOCOL {rng.randrange(12)}"
        self.score = min(1.0, max(0.0, rng.gauss(0.75, 0.08)))
        self.category = "repeat" if self.score < 0.58 else "look" if self.score < 0.64 else "fine"
        self.answer = rng.choice([None, "repeated", "kept"]) if self.category != "fine" else None
        self.factor = rng.lognormvariate(0, 0.15)
        self.n_images = rng.randint(*images)
        self.folder = datetime.fromtimestamp(self.at, UTC).strftime("%Y%m%d-%H")


def _rows(
    connection: sqlite3.Connection, table: str, by: str = "series_instance_uid"
) -> dict[str, list[dict[str, Any]]]:
    cursor = connection.execute(f"SELECT * FROM {table}")
    names = [column[0] for column in cursor.description]
    found: dict[str, list[dict[str, Any]]] = {}
    for row in cursor:
        values = dict(zip(names, row, strict=True))
        found.setdefault(values[by], []).append(values)
    return found


def _copies(kept: dict[str, Any], original: str, facts: _Facts) -> Iterator[tuple[str, dict[str, Any]]]:
    for table, by_series in kept.items():
        rows = by_series.get(original, [])
        if table == "instances":
            rows = [rows[k % len(rows)] for k in range(facts.n_images if rows else 0)]
        for k, row in enumerate(rows):
            copy = dict(row) | {"series_instance_uid": facts.uid}
            copy.pop("id", None)  # of associations it is given again, everywhere else the database counts
            if "study_instance_uid" in copy:
                copy["study_instance_uid"] = f"2.25.8{facts.i // 3:012d}"
            copy = copy | _changed(table, copy, facts, k)
            if table == "associations":
                del copy["series_instance_uid"]
            yield table, copy


def _changed(table: str, copy: dict[str, Any], facts: _Facts, k: int) -> dict[str, Any]:
    """Return the columns of a copy that differ from those of its original."""
    if table == "series":
        times = {"state_at": facts.at, "last_instance_at": facts.at, "opened_at": facts.at}
        return {**times, "n_instances": facts.n_images, "association_id": facts.association}
    if table == "instances":
        uid = f"{facts.uid}.{k}"
        path = f"{facts.folder}/{facts.i:012x}{k:020x}.dcm"
        return {"sop_instance_uid": uid, "path": path, "received_at": facts.at, "association_id": facts.association}
    if table == "associations":
        times = {"opened_at": facts.at - 60, "closed_at": facts.at, "last_instance_at": facts.at}
        return {"id": facts.association, "last_series_uid": facts.uid, **times}
    if table == "worklist":
        verdict = {"score": facts.score, "category": facts.category, "answer": facts.answer}
        place = {"scanner": facts.scanner, "protocol": facts.protocol}
        times = {"received_at": facts.at, "last_image_at": facts.at}
        return {**(verdict if copy["score"] is not None else {}), **place, **times, "change": 10_000 + facts.i}
    if table == "assessments":
        return {"quality": facts.score, "assessed_at": facts.at}
    if table == "measured_stacks":
        return {"scanner": facts.scanner, "protocol": facts.protocol, "measured_at": facts.at}
    if table == "measures":
        return {"value": None if copy["value"] is None else copy["value"] * facts.factor}
    if table == "deliveries":
        return {"created_at": facts.at, "done_at": facts.at, "state": "sent", "report_sop_instance_uid": None}
    return {}


def _insert(connection: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        names = list(rows[0])
        marks = ", ".join("?" * len(names))
        values = [[row[name] for name in names] for row in rows]
        connection.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", values)
