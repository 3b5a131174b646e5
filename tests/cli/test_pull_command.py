"""`mediqa-node pull`, against Orthanc and a node whose receiver listens."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.bench import migrate
from support.command import invoke_in
from support.node import Node
from support.orthanc import Orthanc
from support.series import ct_series
from support.waiting import need, until

from mediqa_node.storage.database import Database


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Orthanc]:
    need(request.config, "/usr/sbin/Orthanc")
    running = Orthanc(tmp_path_factory.mktemp("orthanc")).start()
    for name, description in (("a", "Thorax"), ("b", "Scout")):
        for path in ct_series(tmp_path_factory.mktemp(name), name, SeriesDescription=description):
            running.upload(path.read_bytes())
    yield running
    running.stop()


@pytest.fixture
def node(archive: Orthanc, tmp_path: Path) -> Iterator[Node]:
    """A node of which only the receiver runs: it takes seconds less."""
    peer = {"ae_title": archive.ae_title, "host": "127.0.0.1", "port": archive.dicom_port}
    made = Node(tmp_path, peers={"PACS": peer})
    archive.knows("node", "MEDIQA", made.port)
    yield made


def pull(node: Node, *options: str) -> subprocess.CompletedProcess[str]:
    return invoke_in(node.folder, "pull", "--peer", "PACS", "--since", "2026-11-19", "--until", "2026-11-21", *options)


def test_series_are_listed_then_pulled_while_the_receiver_runs(node: Node) -> None:
    settings = yaml.safe_load(node.configuration.read_text())
    settings["returns"] = []
    node.configuration.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "mediqa_node", "-c", str(node.configuration), "process", "receiver"]
    prepare(node.folder)

    refused = pull(node)
    assert refused.returncode == 1
    assert "`mediqa-node serve`" in refused.stderr
    listed = pull(node, "--dry-run", "--modality", "ct", "--description", "THOR")
    assert listed.stdout.splitlines() == ["1 series to pull, 0 here already", "  20261120  CT       5  Thorax"]

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        until(node.answers_echo, "the receiver listens")
        first = pull(node, "--at-most", "1", "--json")
        second = pull(node)
        running.terminate()
        running.communicate(timeout=60)

    assert json.loads(first.stdout) == {"n_pulled": 1, "n_instances": 5, "n_here": 0, "n_left": 0, "failures": {}}
    assert second.stdout == "1 series pulled from PACS (5 instances), 1 here already, 0 failed, 0 left\n"
    assert (first.returncode, second.returncode) == (0, 0)


def prepare(folder: Path) -> None:
    """Give the node of a folder its tables."""
    (folder / "var").mkdir()
    database = Database(f"sqlite:///{folder / 'var' / 'node.db'}")
    migrate(database)
    database.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--description", "("), "no regular expression"),
        (("--until", "2026-11-01"), "--since"),
        (("--until", "yesterday"), "must be a day"),
        (("--peer", "NOBODY"), "configured: PACS"),
        (("--at-most", "0"), "--at-most"),
    ],
)
def test_what_makes_no_sense_is_misuse(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    peers = {"PACS": {"ae_title": "P", "host": "127.0.0.1", "port": 1}}
    (tmp_path / "node.yaml").write_text(yaml.safe_dump({"node": {"data_dir": "var"}, "peers": peers}))
    prepare(tmp_path)

    result = invoke_in(tmp_path, "pull", "--peer", "PACS", "--since", "2026-11-19", "--dry-run", *options)

    assert result.returncode == 2, result.stderr
    assert words in result.stderr
