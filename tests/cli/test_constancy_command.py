"""`mediqa-node constancy`: what it says with and without a node, and its exit status."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load, save
from support.command import invoke_in

from mediqa_node import config
from mediqa_node.composition import resources
from mediqa_node.domain.preprocessing import NetworkInput
from mediqa_node.domain.prompt import Prompt
from mediqa_node.domain.scoring import ScoredSlices
from mediqa_node.model.checkpoint import seeded_weights
from mediqa_node.model.lock import DEFAULT_LOCK, digest, read_lock
from mediqa_node.model.network import MedIQA
from mediqa_node.model.predict import NetworkScorer
from mediqa_node.model.sizes import SIZES
from mediqa_node.storage import constancy_checks

pytestmark = pytest.mark.usefixtures("one_decoder", "scored_once")


@pytest.fixture(scope="module")
def known() -> dict[tuple[str, bytes], ScoredSlices]:
    """What each checkpoint has said of each image of these tests."""
    return {}


@pytest.fixture
def scored_once(known: dict[tuple[str, bytes], ScoredSlices], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the network score the reference images once for each checkpoint: these tests are about what is said."""
    score = NetworkScorer.score

    def remembered(self: NetworkScorer, inputs: NetworkInput, prompt: Prompt) -> ScoredSlices:
        key = self.checkpoint.sha256, inputs.images.tobytes()
        if key not in known:
            known[key] = score(self, inputs, prompt)
        return known[key]

    monkeypatch.setattr(NetworkScorer, "score", remembered)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node that was prepared and never ran."""
    (tmp_path / "node.yaml").write_text(yaml.safe_dump({"retention": {"low_water_bytes": 0}}))
    resources.prepare(config.load(tmp_path / "node.yaml", {}))
    return tmp_path


@pytest.fixture
def drifted(node: Path) -> Path:
    """A node whose weights differ from those of its card in one number, pinned again by somebody."""
    entry = read_lock(DEFAULT_LOCK)["untrained"]
    weights = load(seeded_weights(MedIQA(SIZES["t16"]), entry.seed))
    weights["fc_score.3.bias"] = weights["fc_score.3.bias"] + 0.01
    content = save(weights)
    card = json.loads(entry.card.read_bytes()) | {"weights_sha256": digest(content)}
    made = node / "changed"
    made.mkdir()
    (made / "weights.safetensors").write_bytes(content)
    (made / "card.json").write_text(json.dumps(card))
    pins = {"sha256": digest(content), "card_sha256": digest((made / "card.json").read_bytes())}
    (node / "models.lock").write_text(yaml.safe_dump({"default": {"directory": "changed", **pins}}))
    (node / "node.yaml").write_text(yaml.safe_dump({"model": {"lock": "models.lock"}}))
    return node


def test_it_checks_without_a_node_and_says_that_nothing_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text("{}")

    result = invoke_in(tmp_path, "constancy")

    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("steady")
    assert "recorded    no: there is no database" in result.stdout
    assert not (tmp_path / "var").exists()
    for name in ("ct_chest", "mr_breast", "op_fundus"):
        assert name in result.stdout


def test_a_drift_is_shown_recorded_told_by_status_and_accepted_by_a_person(drifted: Path) -> None:
    found = invoke_in(drifted, "constancy", "--json")
    check = json.loads(found.stdout)
    assert (found.returncode, check["verdict"], check["recorded"]) == (1, "DRIFT", True)
    assert check["drift"] == pytest.approx(0.01, abs=1e-5)

    status = invoke_in(drifted, "status")
    assert status.returncode == 1
    assert "constancy   failed" in status.stdout
    assert 'mediqa-node constancy --history`; to accept it `--acknowledge "NAME"' in status.stdout

    accepted = invoke_in(drifted, "constancy", "--acknowledge", "Dr. Curie")
    assert (accepted.returncode, accepted.stdout.splitlines()[-1]) == (0, "→ mediqa-node retry")
    assert "by Dr. Curie: raw score of" in accepted.stdout
    assert "constancy   failed" not in invoke_in(drifted, "status").stdout

    again = invoke_in(drifted, "constancy")
    assert again.returncode == 0, again.stdout
    assert again.stdout.startswith("accepted")

    history = invoke_in(drifted, "constancy", "--history").stdout
    assert [line.split()[0] for line in history.splitlines()[1:3]] == ["2", "1"]
    assert "Dr. Curie, " in history


def test_a_good_check_says_what_comes_next(node: Path) -> None:
    assert (
        invoke_in(node, "constancy")
        .stdout.splitlines()[-1]
        .startswith("→ mediqa-node serve: the worker makes its own check")
    )

    database = resources.open_database(config.load(node / "node.yaml", {}))
    with database.write() as connection:
        good = constancy_checks.last_check(connection)
        constancy_checks.save_check(connection, replace(good, made_by="worker"))
    after_good = invoke_in(node, "constancy").stdout.splitlines()[-1]
    with database.write() as connection:
        constancy_checks.save_check(connection, replace(good, made_by="worker", passed=False, problem="MemoryError"))
    after_bad = invoke_in(node, "constancy").stdout.splitlines()[-1]
    other = replace(good.identity, libraries="torch 99")
    with database.write() as connection:
        constancy_checks.save_check(connection, replace(good, identity=other, made_by="worker", passed=False))
    elsewhere = invoke_in(node, "constancy").stdout.splitlines()[-1]
    database.close()

    assert after_good == "no report is withheld; the worker checks at every start and every day"
    assert after_bad == "→ mediqa-node retry: the worker checks again before the first report leaves"
    assert elsewhere.startswith("→ restart the node: its worker runs with other software or weights")


def test_the_history_names_what_changed_before_a_drift(drifted: Path) -> None:
    with_lock = (drifted / "node.yaml").read_text()
    (drifted / "node.yaml").write_text("{}")
    invoke_in(drifted, "constancy")
    (drifted / "node.yaml").write_text(with_lock)
    invoke_in(drifted, "constancy")

    shown = invoke_in(drifted, "constancy", "--history").stdout

    good = read_lock(DEFAULT_LOCK)["default"].sha256[:12]
    changed = read_lock(drifted / "models.lock")["default"].sha256[:12]
    assert f"before check 2: weights {good} → weights {changed}" in shown


def test_without_a_failed_check_there_is_nothing_to_accept(node: Path) -> None:
    result = invoke_in(node, "constancy", "--acknowledge", "Dr. Curie")

    assert result.returncode == 2
    assert "no failed check" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--acknowledge", " "], "1 to 64"), (["--history", "--phantoms"], "choose one"), (["--often"], "No such option")],
)
def test_misuse_is_exit_2(node: Path, arguments: list[str], said: str) -> None:
    result = invoke_in(node, "constancy", *arguments)

    assert result.returncode == 2
    assert said in result.stderr


def test_an_empty_history_and_no_phantoms_say_what_would_fill_them(node: Path) -> None:
    assert "no check yet" in invoke_in(node, "constancy", "--history").stdout
    assert "nothing measured yet; rules in `score.phantoms`: none" in invoke_in(node, "constancy", "--phantoms").stdout
    assert json.loads(invoke_in(node, "constancy", "--phantoms", "--json").stdout) == []


def test_a_database_of_an_older_version_is_not_written_to(node: Path) -> None:
    database = resources.open_database(config.load(node / "node.yaml", {}))
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")

    result = invoke_in(node, "constancy")

    assert result.returncode == 0
    assert "recorded    no: the database was written by another version" in result.stdout
    with database.read() as connection:
        assert constancy_checks.history(connection, at_most=1) == []
    database.close()
