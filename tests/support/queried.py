"""A node whose own reports and pictures are queried: by DCMTK, by pynetdicom."""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset
from pynetdicom import AE

from mediqa_node.decode.syntaxes import decodable_transfer_syntaxes
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import CompanionRules, DeliveryRules, ReceiverPolicy
from mediqa_node.domain.rules import ReturnRule
from mediqa_node.network.listeners import Listener, listen
from mediqa_node.network.receiver import Receiver
from mediqa_node.pipeline import flow
from mediqa_node.pipeline.query import QueryServices
from support.bench import Bench
from support.scripted import scripted
from support.series import ct_series
from support.waiting import free_port

SR_CLASS, KEY_OBJECT = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.59"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
STUDY_FIND, STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2"
PATIENT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}


class Asked:
    """A node with two reports and their pictures, whose receiver answers queries."""

    def __init__(self, template: Path, folder: Path) -> None:
        shutil.copytree(template, folder, dirs_exist_ok=True)
        self.folder = folder
        self.viewer_port = free_port()
        self.anna, self.bert = (sorted((folder / name).glob("*.dcm")) for name in ("anna", "bert"))
        self.peers = [Peer(name="VIEWER", ae_title="VIEWER", host="127.0.0.1", port=self.viewer_port)]
        self.bench = bench_in(folder, self.peers)
        self.receiver: Receiver
        self.receiver, self.writer = flow.receive(
            self.bench.database,
            self.bench.spool,
            ReceiverPolicy(query=True),
            ae_title="MEDIQA",
            listeners=[Listener(listen("127.0.0.1", 0))],
            transfer_syntaxes=decodable_transfer_syntaxes(),
            services=self.services().services(),
        )
        threading.Thread(target=self.receiver.serve, daemon=True).start()

    def services(self) -> QueryServices:
        return QueryServices(database=self.bench.database, ae_title="MEDIQA", peers=self.peers)

    def close(self) -> None:
        self.receiver.stop(within_s=1.0)
        self.writer.stop()
        self.bench.close()

    def find(self, *keys: str, model: str = "-S") -> list[dict[str, str]]:
        """Return what findscu shows of each answer, by keyword."""
        command = ["/usr/bin/findscu", model, "-aec", "MEDIQA", "127.0.0.1", str(self.receiver.port)]
        for key in keys:
            command += ["-k", key]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=ENVIRONMENT).stderr
        answers: list[dict[str, str]] = []
        for line in said.splitlines():
            if "Find Response:" in line:
                answers.append({})
            elif answers and (found := re.search(r"\([0-9a-f,]{9}\) .. (.*?) *# *\d+, *\d+ (\w+)", line)):
                answers[-1][found[2]] = found[1].strip("[]").rstrip("\0 ") if found[1] != "(no value available)" else ""
        return answers

    def associated(self, *classes: str):
        """Return an open association of pynetdicom."""
        entity = AE(ae_title="VIEWER")
        for uid in classes:
            entity.add_requested_context(uid)
        association = entity.associate("127.0.0.1", self.receiver.port, ae_title="MEDIQA")
        assert association.is_established
        return association

    def statuses(self, model: str, **keys: str) -> list[int]:
        """Return the statuses of a C-FIND."""
        association = self.associated(model)
        found = [int(status.Status) for status, _ in association.send_c_find(identifier(**keys), model)]
        association.release()
        return found


def bench_in(folder: Path, peers: list[Peer]) -> Bench:
    return Bench(
        folder / "bench",
        peers=peers,
        returns=[ReturnRule(to=("PACS",))],
        companions=CompanionRules(secondary_capture=True),
        delivery=DeliveryRules(timeout_s=5.0),
        receiver=ReceiverPolicy(query=True),
    )


def fill(folder: Path) -> None:
    """Have a node receive two series and deliver their reports and pictures."""
    anna = ct_series(folder / "anna", "anna")
    changes = {"patient_id": "SYN002", "patient_name": "Öl^Bert", "StudyDate": "20261121", "StudyID": "S2"}
    bert = ct_series(folder / "bert", "bert", **changes)
    with scripted(classes=(SR_CLASS, SECONDARY_CAPTURE)) as pacs:
        bench = bench_in(folder, [Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)])
        for paths, association in ((anna, "a1"), (bert, "a2")):
            bench.receive_all(paths, association=association)
        bench.pass_time(20)
        bench.close()


def identifier(**keys: str) -> Dataset:
    ds = Dataset()
    for keyword, value in keys.items():
        setattr(ds, keyword, value)
    return ds


def study_of(paths: list[Path]) -> str:
    return str(pydicom.dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID)


def moved(asked: Asked, to: str = "VIEWER", model: str = STUDY_MOVE, **keys: str) -> list[tuple[int, int, int]]:
    """Return status, completed and failed of each answer to a C-MOVE."""
    association = asked.associated(model)
    answers = association.send_c_move(identifier(**keys), to, model)
    found = [
        (
            int(status.Status),
            status.get("NumberOfCompletedSuboperations", 0),
            status.get("NumberOfFailedSuboperations", 0),
        )
        for status, _ in answers
    ]
    association.release()
    return found


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give what a node has kept of two series whose reports and pictures were delivered."""
    folder = tmp_path_factory.mktemp("template")
    fill(folder)
    return folder


@pytest.fixture(scope="module")
def asked(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """Give one that the tests of a file share."""
    made = Asked(template, tmp_path_factory.mktemp("asked"))
    yield made
    made.close()


@pytest.fixture
def changing(template: Path, tmp_path: Path) -> Iterator[Asked]:
    """Give one that a test may change."""
    made = Asked(template, tmp_path)
    yield made
    made.close()
