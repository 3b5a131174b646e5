"""`mediqa-node backscore`: what an administrator starts, reads and stops."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from support.bench import Bench
from support.command import invoke_in
from support.series import ct_series

from mediqa_node import config
from mediqa_node.composition import checkpoints, data_folder
from mediqa_node.domain.policy import ScorePolicy
from mediqa_node.domain.promotion import Action, Promotion, Weights
from mediqa_node.pipeline.backscore import feeder
from mediqa_node.storage import promotions


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A node that holds two series too old for a score; its stand-in scores as the checkpoint that is configured."""
    settings = {"model": {"checkpoint": "untrained", "allow_untrained": True}, "retention": {"low_water_bytes": 0}}
    (tmp_path / "node.yaml").write_text(yaml.safe_dump({**settings, "web": {"enabled": False}}))
    loaded = config.load(tmp_path / "node.yaml", {})
    data_folder.make(loaded)
    made = Bench(loaded.data_dir, url=loaded.database_url, score=ScorePolicy(max_age_days=30))
    active = checkpoints.configured(loaded)
    made.scorer.checkpoint = replace(
        made.scorer.checkpoint, name=active.name, sha256=active.sha256, card_sha256=active.card_sha256
    )
    for name in ("a", "b"):
        made.receive_all(ct_series(tmp_path / name, name, slices=range(3), StudyDate="20240101"), association=name)
        made.pass_time(90)
    yield made
    made.close()


def command(folder: Path, *arguments: str) -> tuple[int, str]:
    done = invoke_in(folder, "backscore", *arguments)
    return done.returncode, done.stdout + done.stderr


def test_a_set_is_counted_started_watched_and_done(bench: Bench, tmp_path: Path) -> None:
    counted = command(tmp_path, "start", "--dry-run", "--modality", "ct")
    started = command(tmp_path, "start", "--by", "Anna", "--modality", "ct")
    listed = command(tmp_path, "list")
    running = command(tmp_path, "show", "1")
    feeder.feed(bench.node)
    bench.work()
    feeder.feed(bench.node)
    status, shown = command(tmp_path, "show", "1")
    found = json.loads(command(tmp_path, "show", "1", "--json")[1])
    nothing = command(tmp_path, "start", "--by", "Anna")
    written = command(tmp_path, "scores", "1", "scores.csv")
    refused = command(tmp_path, "scores", "1", "scores.csv")
    rows = list(csv.DictReader((tmp_path / "scores.csv").open(newline="")))

    assert counted[0] == 0
    assert "2 series to score with untrained" in counted[1]
    assert "nothing was started" in counted[1]
    assert started[1].startswith("set 1: 2 series to score with untrained")
    assert started[1].endswith("→ mediqa-node backscore show 1 --follow\n")
    assert "Anna  running     0   2  untrained   CT, without a score of this checkpoint" in listed[1]
    assert "done        0 of 2" in running[1]
    assert (status, "2 scored" in shown, "state       done" in shown) == (0, True, True)
    assert found["outcomes"] == [{"state": "scored", "reason_code": None, "n": 2}]
    assert (found["n_done"], found["total"], found["made_by"]) == (2, 2, "Anna")
    assert nothing[1].startswith("0 series to score")
    assert (written, refused[0]) == ((0, "2 series in scores.csv\n"), 2)
    assert [(row["outcome"], row["scanner"], row["acquired"][:10]) for row in rows] == [
        ("scored", "CT_ROOM_1", "2026-11-20")
    ] * 2
    assert all(0 < float(row["quality"]) < 1 for row in rows)


def test_a_set_is_paused_resumed_and_cancelled(bench: Bench, tmp_path: Path) -> None:
    command(tmp_path, "start", "--by", "Anna")

    assert command(tmp_path, "pause", "1") == (0, "set 1 paused\n")
    assert command(tmp_path, "pause", "1") == (1, "set 1 is paused: nothing was changed\n")
    assert "state       paused: by a person\n" in command(tmp_path, "show", "1")[1]
    assert "set 1 paused, 0 of 2 series taken" in invoke_in(tmp_path, "status").stdout
    assert command(tmp_path, "resume", "1") == (0, "set 1 running\n")
    assert command(tmp_path, "cancel", "1") == (0, "set 1 cancelled\n")
    assert command(tmp_path, "resume", "1") == (1, "set 1 is cancelled: nothing was changed\n")
    assert command(tmp_path, "show", "7") == (1, "no set 7; `mediqa-node backscore list` lists them\n")


def test_a_set_is_not_resumed_under_another_checkpoint(bench: Bench, tmp_path: Path) -> None:
    command(tmp_path, "start", "--by", "Anna")
    command(tmp_path, "pause", "1")
    other = Weights(name="other", sha256="ef" * 32, card_sha256="01" * 32)
    with bench.database.write() as connection:
        promotions.save(connection, Promotion(action=Action.PROMOTE, at=1.0, by="Anna", reason="better", after=other))

    status, told = command(tmp_path, "resume", "1")

    assert status == 1
    assert told.startswith("set 1 is for untrained")
    assert "another checkpoint is active" in told


def test_what_cannot_be_started_is_refused(bench: Bench, tmp_path: Path) -> None:
    assert command(tmp_path, "start")[0] == 2, "nobody starts it"
    assert command(tmp_path, "start", "--by", "Anna", "--since", "yesterday")[0] == 2
    assert command(tmp_path, "start", "--dry-run", "--since", "2026-01-02", "--until", "2026-01-01")[0] == 2
    assert json.loads(command(tmp_path, "list", "--json")[1]) == []


def test_show_of_a_series_has_its_back_score(bench: Bench, tmp_path: Path) -> None:
    command(tmp_path, "start", "--by", "Anna", "--limit", "1")
    feeder.feed(bench.node)
    bench.work()
    scored = next(
        one for one in json.loads(invoke_in(tmp_path, "series", "--json").stdout) if one["state"] == "ASSESSED"
    )

    shown = invoke_in(tmp_path, "show", scored["key"])

    assert shown.returncode == 0, shown.stderr
    assert "back-scored, not reported" in shown.stdout
    assert "by untrained in set 1, 2026-11-20" in shown.stdout
