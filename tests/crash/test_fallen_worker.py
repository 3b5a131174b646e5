"""Fault F9: a series with which the worker hangs or dies is tried a few times, then parked; all others are scored."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.node import Node
from support.senders import storescu
from support.series import ct_series, series_uid

pytestmark = [pytest.mark.peers, pytest.mark.acceptance]

HOOK = Path(__file__).parents[1] / "support" / "hook"
HANGS_AFTER_S = 10.0


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("how", "status"), [("segfaults", -signal.SIGSEGV), ("hangs", 1)])
def test_a_series_that_ends_the_worker_is_parked_and_the_others_are_scored(
    how: str, status: int, new_node: Callable[..., Node], tmp_path: Path
) -> None:
    bad = ct_series(tmp_path / "bad", f"{how} bad", slices=range(2))
    good = [ct_series(tmp_path / f"good{i}", f"{how} good {i}", slices=range(2)) for i in range(2)]
    (tmp_path / "worker-falls").write_text(f"{series_uid(bad)} {how}")
    model = {"checkpoint": "untrained", "allow_untrained": True, "device": "cpu", "hangs_after_s": HANGS_AFTER_S}
    node = new_node(model=model).start(environment={"PYTHONPATH": str(HOOK), "MEDIQA_TRIAL_FOLDER": str(tmp_path)})

    for paths in (bad, *good):
        storescu(node.port, paths)

    row = node.reaches(series_uid(bad), "PARKED")
    assert "ended its process again and again" in str(row.reason)
    assert [node.reaches(series_uid(paths), "DELIVERED").state for paths in good] == ["DELIVERED"] * 2
    deaths = [line["status"] for line in node.log("process ended and is started again")]
    assert set(deaths) == {status}, "it was no other process, and it died of nothing else"
    assert len(deaths) == 4
    assert "parked" in node.command("status").stdout
