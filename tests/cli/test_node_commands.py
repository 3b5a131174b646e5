"""The commands that look after a node: what they say, and their exit status."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.command import run_in

from mediqa_node import config
from mediqa_node.composition import resources
from mediqa_node.network.sender import send_files

ROOT = Path(__file__).parents[2]
SERIES = ROOT / "tests" / "data" / "ct_sts003_lowdose"


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return run_in(folder, *arguments)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node that was prepared and has received a series, and does not run."""
    import threading

    from mediqa_node.decode.syntaxes import decodable_transfer_syntaxes
    from mediqa_node.domain.peer import Peer
    from mediqa_node.pipeline.flow import receive

    folder = tmp_path_factory.mktemp("node")
    peers = {"PACS": {"ae_title": "P", "host": "127.0.0.1", "port": 1}}
    settings = {"peers": peers, "retention": {"low_water_bytes": 0}}
    (folder / "node.yaml").write_text(yaml.safe_dump(settings))
    settings = config.load(folder / "node.yaml", {})
    resources.prepare(settings)
    database = resources.open_database(settings)
    receiver, writer = receive(
        database,
        resources.open_spool(settings),
        settings.receiver,
        ae_title="MEDIQA",
        host="127.0.0.1",
        port=0,
        transfer_syntaxes=decodable_transfer_syntaxes(),
    )
    thread = threading.Thread(target=receiver.serve, daemon=True)
    thread.start()
    us = Peer(name="us", ae_title="MEDIQA", host="127.0.0.1", port=receiver.port)
    assert all(not failure for _, failure in send_files(us, sorted(SERIES.glob("*.dcm")), ae_title="CT1"))
    receiver.stop(within_s=5)
    writer.stop()
    database.close()
    return folder


def test_a_node_that_was_never_started_says_how_to_start_it(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text("{}")

    result = run("status", folder=tmp_path)

    assert result.returncode == 2
    assert "mediqa-node serve" in result.stderr


def test_status_tells_what_is_kept_and_that_nothing_runs(node: Path) -> None:
    result = run("status", folder=node)

    assert result.returncode == 1, result.stderr  # a node that does not run needs a person
    assert "1 series, 7 instances" in result.stdout
    assert "receiver, worker, courier not running here" in result.stdout
    assert "from CT1" in result.stdout


def test_status_as_json_is_json(node: Path) -> None:
    result = run("status", "--json", folder=node)

    found = json.loads(result.stdout)
    assert (result.returncode, found["n_instances"], found["running"], found["held"]) == (1, 7, [], [])


def test_series_lists_what_came_and_names_the_next_command(node: Path) -> None:
    result = run("series", folder=node)

    assert "RECEIVING" in result.stdout
    assert "mediqa-node show 1." in result.stdout


def test_series_refuses_a_state_that_does_not_exist(node: Path) -> None:
    result = run("series", "--state", "asleep", folder=node)

    assert result.returncode == 2
    assert "receiving" in result.stderr


def test_show_prints_one_series_and_refuses_an_unknown_one(node: Path) -> None:
    [found] = json.loads(run("series", "--json", folder=node).stdout)

    shown = json.loads(run("show", found["series_instance_uid"], folder=node).stdout)
    unknown = run("show", "1.2.3", folder=node)

    assert shown["n_instances"] == 7
    assert shown["copies"] == {"current": 7}
    assert unknown.returncode == 1
    assert "mediqa-node series" in unknown.stderr


def test_retry_without_anything_to_retry_says_so(node: Path) -> None:
    result = run("retry", folder=node)

    assert result.returncode == 1
    assert "0 deliveries and 0 series" in result.stdout


def test_settling_a_dispute_needs_a_series(node: Path) -> None:
    assert run("retry", "--keep-first", folder=node).returncode == 2


def test_a_log_level_that_does_not_exist_is_one_sentence(node: Path) -> None:
    result = run("--log-level", "loud", "serve", folder=node)

    assert result.returncode == 2
    assert result.stderr.strip().endswith("must be one of DEBUG, INFO, WARNING, ERROR")


def test_a_password_in_the_database_url_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text("database: {url: 'postgresql+psycopg://mediqa:secret@db/node'}")

    assert "secret" not in run("config", "show", folder=tmp_path).stdout


def test_a_peer_that_does_not_answer_is_exit_1_and_an_unknown_one_exit_2(node: Path) -> None:
    silent, unknown = run("echo", "PACS", folder=node), run("echo", "NOBODY", folder=node)

    assert (silent.returncode, unknown.returncode) == (1, 2)
    assert "not reachable" in silent.stderr
    assert "configured: PACS" in unknown.stderr


def test_config_check_and_show(node: Path) -> None:
    assert "good" in run("config", "check", folder=node).stdout
    assert yaml.safe_load(run("config", "show", folder=node).stdout)["peers"]["PACS"]["port"] == 1


def test_the_version_is_printed_without_a_configuration(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mediqa_node", "--version"], capture_output=True, text=True, check=False, cwd=tmp_path
    )

    assert result.stdout.startswith("mediqa-node 0.")


@pytest.fixture
def damaged(node: Path) -> Iterator[Path]:
    """The node with one spooled file changed; mended afterwards."""
    path = next((node / "var" / "spool").glob("2*/*.dcm"))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    yield node
    path.write_bytes(content)


def test_verify_is_silent_on_a_sound_spool_and_names_a_changed_file(node: Path, damaged: Path) -> None:
    result = run("verify", "--no-peers", folder=damaged)

    assert result.returncode == 1
    assert "has changed since it was received" in result.stdout


def test_verify_finds_a_sound_spool_well(node: Path) -> None:
    result = run("verify", "--no-peers", folder=node)

    assert result.returncode == 0, result.stdout
    assert "7 instances, 0 reports checked" in result.stdout


def test_the_demo_shows_a_score_and_a_report(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mediqa_node", "demo", "--keep", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )

    assert result.returncode == 0, result.stderr
    assert "8 images of a chest CT" in result.stdout
    assert "UNTRAINED" not in result.stdout
    [report] = (tmp_path / "pacs").glob("2*/*.dcm")
    assert str(report) in result.stdout
