"""`mediqa-node model list | promote | rollback | shadow | compare`: what they say, and their exit status."""

import json
from pathlib import Path

import pytest
import yaml
from support.checkpoints import checkpoint
from support.command import invoke_in
from support.siblings import before_release

from mediqa_node import config
from mediqa_node.composition import checkpoints, resources
from mediqa_node.domain.promotion import ShadowScore, Weights
from mediqa_node.model.lock import digest
from mediqa_node.storage import promotions
from mediqa_node.storage.tables import series as series_table


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node that was prepared, and two checkpoints beside it; a calibration holds for the first."""
    first = checkpoint(tmp_path, "first", seed=1)
    checkpoint(tmp_path, "second", seed=2)
    pins = yaml.safe_load((first / "models.lock").read_text())["first"]
    record = {"id": "CT-1", "modality": "CT", "station_name": "*", "protocol_name": "*"}
    record |= {"weights_sha256": pins["sha256"], "card_sha256": pins["card_sha256"]}
    record |= {"borderline_below": 0.5, "review_below": 0.3, "n_series": 50, "n_readers": 3, "fingerprint": "f"}
    record |= {"approved_by": "Dr. Curie", "approved_on": "2026-01-01"}
    model = {"lock": "first/models.lock", "checkpoint": "first", "device": "cpu"}
    settings = {"model": model, "calibrations": [record], "retention": {"low_water_bytes": 0}}
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))
    resources.prepare(config.load(tmp_path / "node.yaml", {}))
    return tmp_path


def roles(node: Path) -> dict[str, list[str]]:
    listed = json.loads(invoke_in(node, "model", "list", "--json").stdout)["checkpoints"]
    return {one["weights"]["name"]: one["roles"] for one in listed}


def test_a_promotion_says_what_it_voids_and_a_rollback_undoes_it(node: Path) -> None:
    before = invoke_in(node, "model", "list")
    decision = ("--by", "Dr. Curie", "--reason", "readers agree")
    done = invoke_in(node, "model", "promote", "second", "--unevaluated", *decision, "--name", "two")
    after, status = roles(node), invoke_in(node, "status").stdout
    doctor = invoke_in(node, "doctor").stdout
    back = invoke_in(node, "model", "rollback", "--by", "Dr. Bohr")
    history = invoke_in(node, "model", "list", "--history").stdout

    assert before.stdout.splitlines()[-1].endswith("by `model.checkpoint`")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("promoted    two ")
    for words in ("constancy   the card pins no scores", "void        calibration CT-1", "→ mediqa-node serve"):
        assert words in done.stdout
    assert after == {"first": ["previous", "configured"], "two": ["current"]}
    assert "by Dr. Curie; `model.checkpoint` names first" in status
    assert "active: two " in doctor
    assert back.stdout.startswith("rolled back first ")
    assert roles(node) == {"first": ["current"], "two": []}
    assert [line.split()[0] for line in history.splitlines()] == ["decision", "1", "2"]
    assert "readers agree" in history


def test_the_list_names_what_a_calibration_has_to_name(node: Path) -> None:
    invoke_in(node, "model", "promote", "second", "--unevaluated", "--by", "Dr. Curie")
    settings = config.load(node / "node.yaml", {})

    [listed] = [
        one
        for one in json.loads(invoke_in(node, "model", "list", "--json").stdout)["checkpoints"]
        if "current" in one["roles"]
    ]
    scorer = checkpoints.open_active(settings).scorer

    said = (listed["weights"]["sha256"], listed["weights"]["card_sha256"], listed["fingerprint"])
    assert said == (scorer.checkpoint.sha256, scorer.checkpoint.card_sha256, scorer.spec.fingerprint())


def test_what_the_lock_names_and_cannot_score_is_listed_as_that(node: Path) -> None:
    (node / "words").mkdir()
    (node / "words" / "card.json").write_text('{"format": "prompt-classifier-1"}')
    pins = {"directory": "../words", "sha256": "0" * 64, "card_sha256": digest(b'{"format": "prompt-classifier-1"}')}
    with (node / "first" / "models.lock").open("a") as lock:
        lock.write(yaml.safe_dump({"words": pins}))

    assert roles(node) == {"first": ["current"], "words": ["no checkpoint"]}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["promote", "second"], 2, "give the name of who decides"),
        *before_release(
            (["promote", "third"], 2, "known: first"),
            (["shadow", "third"], 2, "known: first"),
            (["promote", "second", "--by", " "], 2, "1 to 64"),
        ),
        (["promote", "third", "--by", "x"], 2, "known: first"),
        (["promote", "first", "--by", "x"], 1, "is active already"),
        (["promote", "second", "--by", "x"], 1, "reference scores (`mediqa-node model pin`)"),
        (["rollback", "--by", "x"], 1, "no promotion to roll back"),
        *before_release(
            (["shadow", "--by", "x"], 2, "name a candidate, or --off"),
            (["shadow", "--off", "--by", "x"], 1, "nothing is in shadow"),
        ),
    ],
)
def test_what_cannot_be_decided_says_why(node: Path, arguments: list[str], status: int, said: str) -> None:
    result = invoke_in(node, "model", *arguments)

    assert (result.returncode, said in result.stderr) == (status, True), result.stderr


def test_weights_that_nobody_has_evaluated_leave_nothing_in_the_store_and_do_not_score(node: Path) -> None:
    refused = invoke_in(node, "model", "promote", "second", "--by", "x")

    assert "lacks claims (`mediqa-train evaluate --sweep`" in refused.stderr
    assert "a training range" in refused.stderr
    assert roles(node) == {"first": ["current"]}


def test_weights_promoted_all_the_same_are_reported_as_not_evaluated(node: Path) -> None:
    done = invoke_in(node, "model", "promote", "second", "--unevaluated", "--by", "x")
    active = checkpoints.open_active(config.load(node / "node.yaml", {})).scorer.checkpoint

    assert "NOT EVALUATED" in done.stdout
    assert (active.name, active.trained, active.evaluated) == ("second", True, False)


def test_a_promotion_says_what_becomes_of_the_shadow(node: Path) -> None:
    checkpoint(node, "third", seed=3)
    promote = ("model", "promote", "--unevaluated", "--by", "x")
    invoke_in(node, "model", "shadow", "second", "--by", "x")

    other = invoke_in(node, *promote, "third")
    same = invoke_in(node, *promote, "second", "--json")
    invoke_in(node, "model", "rollback", "--by", "x")
    invoke_in(node, "model", "shadow", "first", "--by", "x")
    back = invoke_in(node, "model", "rollback", "--by", "x")

    assert "goes on" in other.stdout
    assert json.loads(same.stdout)["shadow_ended"].startswith("second ")
    assert "ended: this checkpoint is active now" in back.stdout


def test_a_comparison_speaks_of_each_scanner(node: Path) -> None:
    settings = config.load(node / "node.yaml", {})
    named = invoke_in(node, "model", "shadow", "second", "--by", "Dr. Curie")
    empty = invoke_in(node, "model", "compare")
    candidate = checkpoints.standing(settings).shadow
    assert candidate is not None
    shadowed(settings, candidate, {"CT1": [(0.5, 0.6), (0.6, 0.8), (0.7, 0.7), (0.4, None)], "CT2": [(0.5, 0.4)]})
    shadowed(settings, candidate, {"CT3": [(0.9, 0.1)]}, verdict="outside_range")

    shown = invoke_in(node, "model", "compare")
    found = json.loads(invoke_in(node, "model", "compare", "--json").stdout)
    ended = invoke_in(node, "model", "shadow", "--off", "--by", "Dr. Curie")

    assert named.stdout.startswith("in shadow   second ")
    assert (empty.returncode, "has scored no series" in empty.stdout) == (1, True)
    assert shown.returncode == 0, shown.stderr
    one, two, three = found["scanners"]
    assert (one["station_name"], one["n"], one["not_scored"], one["verdicts_moved"]) == ("CT1", 3, 1, 3)
    assert (one["mean_difference"], one["srcc"]) == (pytest.approx(0.1), pytest.approx(0.5))
    assert (two["n"], two["sd"]) == (1, None)
    assert (three["n"], three["not_scored"]) == (0, 1)
    assert shown.stdout.splitlines()[2].split()[:5] == ["CT1", "CT", "x" * 12, "3", "+0.100"]
    assert ended.stdout.startswith("ended       second ")


def shadowed(
    settings: config.Settings,
    candidate: Weights,
    said: dict[str, list[tuple[float, float | None]]],
    verdict: str = "acceptable",
) -> None:
    """Enter what a candidate said of some series, without their images."""
    same = {"study_instance_uid": "1.1", "modality": "CT", "state": "DELIVERED", "calling_ae_title": "CT1"}
    same |= {"association_id": "a", "n_associations": 1, "longest_gap_s": 0.0, "opened_at": 0.0}
    same |= {"last_instance_at": 0.0, "n_instances": 1, "generation": 1, "revision": 1, "state_at": 0.0}
    database = resources.open_database(settings)
    with database.write() as connection:
        for station, pairs in said.items():
            for i, (own, other) in enumerate(pairs):
                uid = f"1.2.{station[-1]}.{i}"
                connection.execute(series_table.insert().values(**same, series_instance_uid=uid))
                score = ShadowScore(
                    series_instance_uid=uid, revision=1, station_name=station, modality="CT", weights_sha256="x" * 64,
                    quality=own, verdict=verdict, candidate=candidate, candidate_quality=other,
                    candidate_verdict="uncalibrated" if other else None, reason=None if other else "refused",
                    scored_at=1.0,
                )  # fmt: skip
                promotions.save_shadow(connection, score)
    database.close()


def test_a_database_of_an_older_version_is_left_alone(node: Path) -> None:
    database = resources.open_database(config.load(node / "node.yaml", {}))
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0003'")
    database.close()

    result = invoke_in(node, "model", "promote", "second", "--unevaluated", "--by", "x")

    assert (result.returncode, "was written by another version" in result.stderr) == (2, True)
