"""The commands that look after a node: what they say, and their exit status."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support import command
from support.command import run_in

from mediqa_node import config
from mediqa_node.composition import resources
from mediqa_node.network.sender import send_files

ROOT = Path(__file__).parents[2]
SERIES = ROOT / "tests" / "data" / "ct_sts003_lowdose"


def on_terminal(arguments: list[str], *, columns: int) -> str:
    """Return what the command prints on a terminal of this width."""
    import os
    import pty
    import struct
    import termios
    from fcntl import ioctl

    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "mediqa_node", *arguments]
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environment)
    os.close(theirs)
    printed = b""
    try:
        while block := os.read(ours, 65536):
            printed += block
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
    return printed.decode().replace("\r\n", "\n")


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return run_in(folder, *arguments)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node that was prepared and has received a series, and does not run."""
    import threading

    from mediqa_node.decode.syntaxes import decodable_transfer_syntaxes
    from mediqa_node.domain.peer import Peer
    from mediqa_node.network.listeners import Listener, listen
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
        listeners=[Listener(listen("127.0.0.1", 0))],
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


def test_status_says_that_a_full_disk_receives_nothing(node: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load((node / "node.yaml").read_text())
    settings |= {"node": {"data_dir": str(node / "var")}, "retention": {"low_water_bytes": 10**18}}
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))

    assert "nothing is received until" in run("status", folder=tmp_path).stdout
    assert json.loads(run("status", "--json", folder=tmp_path).stdout)["has_room"] is False


def test_status_as_json_is_json(node: Path) -> None:
    result = run("status", "--json", folder=node)

    found = json.loads(result.stdout)
    assert (result.returncode, found["n_instances"], found["running"], found["held"]) == (1, 7, [], [])


def test_series_lists_what_came_and_names_the_next_command(node: Path) -> None:
    result = run("series", folder=node)

    [found] = json.loads(run("series", "--json", folder=node).stdout)
    assert found["series_instance_uid"].endswith(found["key"])
    lines = result.stdout.splitlines()
    assert lines[1].split()[0] == found["key"]
    assert "receiving" in lines[1]
    assert lines[-1] == f"→ mediqa-node show {found['key']}"


@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_gets_lines_that_fit_and_no_word_is_cut(node: Path, columns: int) -> None:
    result = on_terminal(["-c", str(node / "node.yaml"), "series"], columns=columns)

    assert max(len(line) for line in result.splitlines()) <= columns
    [found] = json.loads(run("series", "--json", folder=node).stdout)
    for word in (found["key"], "receiving", "scanner"):
        assert word in result
    assert "…" not in result


def test_series_shows_the_newest_since_a_day(node: Path) -> None:
    later = run("series", "--since", "2100-01-01", folder=node)
    all_of_them = run("series", "--since", "2020-01-01", "--limit", "0", folder=node)
    wrong = run("series", "--since", "yesterday", folder=node)

    assert later.stdout.splitlines()[-1] == "no series"
    assert "receiving" in all_of_them.stdout
    assert (wrong.returncode, "such as 2026-11-30" in wrong.stderr) == (2, True)


def test_series_refuses_a_state_that_does_not_exist(node: Path) -> None:
    result = run("series", "--state", "asleep", folder=node)

    assert result.returncode == 2
    assert "receiving" in result.stderr


def test_show_prints_one_series_and_refuses_an_unknown_one(node: Path) -> None:
    [found] = json.loads(run("series", "--json", folder=node).stdout)

    shown = json.loads(run("show", found["series_instance_uid"], "--json", folder=node).stdout)
    by_key = json.loads(run("show", found["key"], "--json", folder=node).stdout)
    in_words = run("show", found["key"], folder=node).stdout
    unknown = run("show", "1.2.3", folder=node)

    assert shown["n_instances"] == 7
    assert shown["copies"] == {"current": 7}
    assert by_key == shown
    assert [line.split()[0] for line in in_words.splitlines()] == [
        "series", "what", "from", "acquired", "received", "state", "reason", "score", "measures", "technique", "report",
        "→",
    ]  # fmt: skip
    assert found["series_instance_uid"] in in_words
    assert "sent by CT1" in in_words
    assert unknown.returncode == 1
    assert "mediqa-node series" in unknown.stderr


def test_retry_without_anything_to_retry_says_so(node: Path) -> None:
    result = run("retry", folder=node)

    assert result.returncode == 1
    assert "0 deliveries and 0 series" in result.stdout


def test_settling_a_dispute_needs_a_series(node: Path) -> None:
    assert run("retry", "--keep-first", folder=node).returncode == 2


def test_a_log_level_that_does_not_exist_is_one_sentence(node: Path) -> None:
    before, after = run("--log-level", "loud", "serve", folder=node), run("serve", "--log-level", "loud", folder=node)

    for result in (before, after):
        assert result.returncode == 2
        assert result.stderr.strip().endswith("must be one of DEBUG, INFO, WARNING, ERROR")


@pytest.mark.parametrize("place", [["-c", "PATH", "config", "show"], ["config", "show", "--config", "PATH"]])
def test_the_configuration_may_be_named_before_and_after_the_command(tmp_path: Path, place: list[str]) -> None:
    (tmp_path / "other.yaml").write_text("node: {ae_title: OTHER}")

    result = command.run(*(word.replace("PATH", "other.yaml") for word in place), folder=tmp_path)

    assert yaml.safe_load(result.stdout)["node"]["ae_title"] == "OTHER"


def test_every_help_has_whole_sentences_and_both_common_options() -> None:
    """No Python type, no sentence cut by `...`, nothing without help."""
    from typer.testing import CliRunner

    from mediqa_node import cli

    cli.register()
    seen = 0
    waiting: list[list[str]] = [[]]
    while waiting:
        words = waiting.pop()
        shown = CliRunner().invoke(cli.app, [*words, "--help"], env={"COLUMNS": "80"}).stdout
        assert not re.search(r"<[a-zA-Z]", shown), shown
        summary, _, listed = shown.partition("Commands:")
        assert not any(line.endswith("...") for line in shown.splitlines() if not line.startswith("Usage:")), shown
        if listed:
            waiting += [
                [*words, line.split()[0]] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "
            ]
        else:
            assert "--config FILE" in summary and "--log-level LEVEL" in summary, words
        seen += 1
    assert seen > 25


@pytest.mark.parametrize("host_id", ["null", "b"])
def test_a_second_node_on_the_same_data_folder_is_refused_at_once(tmp_path: Path, host_id: str) -> None:
    import fcntl

    (tmp_path / "node.yaml").write_text(f"node: {{host_id: {host_id}}}")
    (tmp_path / "var").mkdir()
    with (tmp_path / "var" / "serve.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        result = run("serve", folder=tmp_path)

    assert result.returncode == 2
    assert "is used by pid 4711" in result.stderr
    assert "several hosts need PostgreSQL" in result.stderr


def test_a_port_in_use_is_a_sentence_at_once(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (tmp_path / "node.yaml").write_text(f"node: {{port: {port}}}")
        result = run("serve", folder=tmp_path)

    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(
        f"mediqa-node: node.host 127.0.0.1, node.port {port}: cannot listen"
    )


def test_a_tls_port_in_use_is_named_too(tmp_path: Path) -> None:
    import socket

    from support.tls import Authority

    Authority(tmp_path).issue("node")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        tls = f"{{certificate: node.pem, key: node.key, port: {port}}}"
        (tmp_path / "node.yaml").write_text(f"node: {{port: 0}}\nreceiver: {{tls: {tls}}}")
        result = run("-c", tmp_path / "node.yaml", "serve", folder=tmp_path)

    assert result.returncode == 2
    assert f"receiver.tls.host 127.0.0.1, receiver.tls.port {port}: cannot listen there" in result.stderr


def test_serve_names_its_configuration_on_a_terminal(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        (tmp_path / "node.yaml").write_text(f"node: {{port: {other.getsockname()[1]}}}")
        printed = on_terminal(["serve", "-c", str(tmp_path / "node.yaml")], columns=80)

    assert printed.splitlines() == [f"configuration {tmp_path / 'node.yaml'}, data in {tmp_path / 'var'}"]


def test_a_data_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text("node: {data_dir: /proc/mediqa}")

    result = run("serve", folder=tmp_path)

    assert (result.returncode, "cannot be created" in result.stderr) == (2, True)


def test_the_data_folder_and_the_database_are_closed_to_other_users(node: Path) -> None:
    assert (node / "var").stat().st_mode & 0o777 == 0o750
    assert {path.name: oct(path.stat().st_mode & 0o007) for path in (node / "var").glob("node.db*")} == {
        path.name: "0o0" for path in (node / "var").glob("node.db*")
    }


def test_a_password_in_the_database_url_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text("database: {url: 'postgresql+psycopg://mediqa:secret@db/node'}")

    assert "secret" not in run("config", "show", folder=tmp_path).stdout


def test_a_peer_that_does_not_answer_is_exit_1_and_an_unknown_one_exit_2(node: Path) -> None:
    silent, unknown = run("echo", "PACS", folder=node), run("echo", "NOBODY", folder=node)

    assert (silent.returncode, unknown.returncode) == (1, 2)
    assert "not reachable" in silent.stderr
    assert "configured: PACS" in unknown.stderr


def test_config_check_and_show(node: Path, tmp_path: Path) -> None:
    rules = [{"from": "CT1", "modality": "CT", "to": ["PACS"]}, {"to": ["sender"], "when": "flagged"}, {"to": ["PACS"]}]
    peers = {"PACS": {"ae_title": "P", "host": "h", "port": 104}}
    (tmp_path / "node.yaml").write_text(yaml.safe_dump({"peers": peers, "returns": rules}))

    checked = run("config", "check", folder=tmp_path)

    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.splitlines()[0].endswith("node.yaml: good")
    assert "PACS: P at h:104" in checked.stdout
    assert "1. CT from CT1: to PACS" in checked.stdout
    assert "2. any modality from any sender: to the sender if it is a configured peer (P)" in checked.stdout
    assert "3. any modality from any sender: never used" in checked.stdout
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
