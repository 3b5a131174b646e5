"""2,000 series of an archive are back-scored by a running node that is paused, killed and wanted by live series.

    pytest -m acceptance tests/acceptance/test_backscored_archive.py -n 0 -s

It takes ten to fifteen minutes on two cores and prints rates and waits. The set has to be done exactly once, with no
report.
"""
# ruff: noqa: T201 (figures, with pytest -s)

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import sqlalchemy as sa
from support.bench import Bench
from support.node import Node
from support.scripted import ScriptedPacs, scripted
from support.senders import storescu
from support.series import ct_series, series_uid
from support.waiting import need, until

from mediqa_node.domain.series import ReasonCode, SeriesState
from mediqa_node.storage.tables import assessments, deliveries, series
from mediqa_node.storage.workbench_tables import worklist

pytestmark = [pytest.mark.acceptance, pytest.mark.peers, pytest.mark.timeout(1800)]

N = 2000
N_LIVE = 6
OLD = "20200101"


@pytest.fixture
def pacs() -> Iterator[ScriptedPacs]:
    with scripted() as running:
        yield running


@pytest.fixture
def node(pacs: ScriptedPacs, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    need(request.config, "/usr/bin/storescu")
    peer = {"ae_title": "SCRIPTED", "host": "127.0.0.1", "port": pacs.port}
    made = Node(tmp_path / "node", peers={"PACS": peer}, score={"max_age_days": 30})
    _fill(made, tmp_path / "files")
    made.start(environment={"MEDIQA_FAILPOINT": f"before-backscore-commit@{tmp_path / 'token'}"})
    yield made
    made.close()


def _fill(node: Node, folder: Path) -> None:
    """Give a node an archive: series that it received and found too old for a score."""
    began = time.monotonic()
    bench = Bench(node.folder / "var")
    bench.now = time.time() - 3600
    for number in range(N):
        paths = ct_series(folder, f"archived {number}", slices=range(3), StudyDate=OLD)
        bench.receive_all(paths, association=f"a{number}")
    with bench.database.write() as connection:
        ended = {"state": SeriesState.NOT_SCORED, "reason_code": ReasonCode.TOO_OLD}
        connection.execute(sa.update(series).values(**ended))
    bench.close()
    print(f"\n{N} series received in {time.monotonic() - began:.0f} s")


def _count(node: Node, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
    with node.database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table).where(*where)).scalar_one())


def _backscore(node: Node, *arguments: str) -> Any:
    done = node.command("backscore", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def _n_done(node: Node) -> int:
    return _count(node, assessments, assessments.c.series_instance_uid.in_(_archived()))


def _archived() -> sa.Select[tuple[str]]:
    return sa.select(series.c.series_instance_uid).where(series.c.calling_ae_title == "CT_ROOM_1")


def _reaches(node: Node, n: int) -> None:
    until(lambda: _n_done(node) >= n, f"{n} series are back-scored", every_s=0.5)


def _stands_still(node: Node, seconds: float) -> None:
    """Insist that nothing is scored, once the series that was being scored is finished."""
    time.sleep(5)
    before = _n_done(node)
    time.sleep(seconds)
    assert _n_done(node) == before


def _live_waits(node: Node, folder: Path, word: str) -> tuple[list[float], list[int]]:
    """Send live series; return for each how long it waited for its score, seconds, and how many went before it."""
    waits, before = [], []
    today = datetime.now(UTC).strftime("%Y%m%d")
    for number in range(N_LIVE):
        changes = {"StudyDate": today, "SeriesDate": today, "AcquisitionDate": today}
        paths = ct_series(folder / f"{word}{number}", f"{word} {number}", **changes)
        assert set(storescu(node.port, paths, aet="LIVE").values()) == {0x0000}
        uid = series_uid(paths)
        node.reaches(uid, "DELIVERED")
        ready, assessed = (_at(node, event, uid) for event in ("series ready", "series assessed"))
        waits.append(assessed - ready)
        others = [_time(line) for line in node.log("series back-scored")]
        before.append(sum(ready < at < assessed for at in others))
        time.sleep(number % 3)  # at other points of the series that is being scored
    return waits, before


def _at(node: Node, event: str, uid: str) -> float:
    [line] = [line for line in node.log(event) if line["series"] == uid]
    return _time(line)


def _time(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def test_an_archive_is_scored_exactly_once_behind_live_series(node: Node, pacs: ScriptedPacs, tmp_path: Path) -> None:
    until(lambda: _count(node, worklist) == N, "every series is listed")
    idle, _ = _live_waits(node, tmp_path, "idle")

    assert _backscore(node, "start", "--dry-run", "--json")["total"] == N
    (token := tmp_path / "token").touch()  # the worker is killed once, just before it commits a score
    began = time.monotonic()
    _backscore(node, "start", "--by", "Anna")
    _reaches(node, N // 10)
    assert not token.exists()
    busy, before = _live_waits(node, tmp_path, "busy")

    _reaches(node, N // 4)
    node.kill_group()
    node.start()
    _reaches(node, N // 4 + N // 20)

    _backscore(node, "pause", "1")
    _stands_still(node, 10)
    node.kill_group()
    node.start()
    _stands_still(node, 10)
    _backscore(node, "resume", "1")
    resumed, n_before = time.monotonic(), _n_done(node)

    until(
        lambda: _backscore(node, "show", "1", "--json")["state"] == "DONE", "the set is done", every_s=5, within_s=1200
    )

    took_s, rate = time.monotonic() - began, (N - n_before) / (time.monotonic() - resumed)
    print(f"{N} series in {took_s:.0f} s with two kills and a pause; {rate:.1f} series a second after the last")
    print(f"live series wait for their score, idle: median {median(idle):.2f} s, at most {max(idle):.2f} s")
    print(f"while a set runs: median {median(busy):.2f} s, at most {max(busy):.2f} s; back-scored before: {before}")
    found = _backscore(node, "show", "1", "--json")
    assert found["outcomes"] == [{"state": "scored", "reason_code": None, "n": N}]
    assert max(before) <= 1
    once = _count(node, assessments, assessments.c.revision == 1, assessments.c.series_instance_uid.in_(_archived()))
    assert (once, _n_done(node)) == (N, N)
    assert _count(node, series, series.c.reason_code == ReasonCode.BACK_SCORED) == N
    assert _count(node, deliveries, deliveries.c.series_instance_uid.in_(_archived())) == 0
    assert len(pacs.received) == 2 * N_LIVE, "the reports of the live series, and no other"
