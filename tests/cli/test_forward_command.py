"""`mediqa-node forward` and `config check --against`: what an administrator reads and does."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml
from support.bench import migrate
from support.series import ct_series
from typer.testing import CliRunner

from mediqa_node import config
from mediqa_node.cli import app, register
from mediqa_node.composition import data_folder, resources
from mediqa_node.domain.forward import ForwardReason, ForwardState, Reconciled
from mediqa_node.storage import reconciliations
from mediqa_node.storage.database import Database
from mediqa_node.storage.forward_tables import forwards
from mediqa_node.storage.reconciliations import Reconciliation
from mediqa_node.storage.tables import instances, series

register()
PEERS = {"PACS": {"ae_title": "ARCHIVE", "host": "10.0.0.5", "port": 104}}


class Node:
    """A configured node with a database, and its commands."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.file = folder / "node.yaml"
        self.file.write_text(yaml.safe_dump({"peers": PEERS, "forward": [{"to": ["PACS"]}], **settings}))
        loaded = config.load(self.file, {})
        data_folder.make(loaded)
        self.database: Database = resources.open_database(loaded)
        migrate(self.database)

    def forward(self, number: int, state: ForwardState, code: ForwardReason | None = None, message: str = "") -> None:
        uid, now = f"1.2.3.{number}", 1_700_000_000.0
        with self.database.write() as connection:
            row = {"series_instance_uid": uid, "study_instance_uid": "1.2", "modality": "CT", "state": "RECEIVING"}
            whence = {"calling_ae_title": "CT1", "association_id": "a", "n_associations": 1, "longest_gap_s": 0.0}
            counts = {"n_instances": 1, "generation": 1, "revision": 0, "state_at": now}
            times = {"opened_at": now, "last_instance_at": now}
            connection.execute(sa.insert(series).values(**row, **whence, **counts, **times))
            own = {"sop_instance_uid": uid, "sop_class_uid": "1.9", "transfer_syntax_uid": "1.8", "status": "current"}
            kept = {"received_at": now, "path": f"x/{number}.dcm", "sha256": "0", "size_bytes": 1, "unread": False}
            ids = {"series_instance_uid": uid, "study_instance_uid": "1.2", "association_id": "a"}
            connection.execute(sa.insert(instances).values(id=number, calling_ae_title="CT1", **own, **kept, **ids))
            what = {"id": number, "instance_id": number, "destination": "PACS", "series_instance_uid": uid}
            how = {"state": state, "reason_code": code, "message": message or None, "priority": 0, "attempts": 1}
            when = {"not_before": now, "created_at": now, "study_instance_uid": "1.2"}
            connection.execute(sa.insert(forwards).values(**what, **how, **when))

    def state(self, number: int) -> tuple[str, str | None]:
        with self.database.read() as connection:
            found = connection.execute(sa.select(forwards).where(forwards.c.id == number)).one()
        return found.state, found.message

    def run(self, *arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["--config", str(self.file), *arguments])
        return result.exit_code, result.output


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_what_was_refused_is_listed_sent_again_or_given_up(node: Node) -> None:
    node.forward(1, ForwardState.WAITING)
    node.forward(2, ForwardState.PARKED, ForwardReason.REFUSED, "status 0xa900")
    node.forward(3, ForwardState.HELD, ForwardReason.OTHER_PIXELS)

    status, listed = node.run("forward", "list")
    again = node.run("forward", "retry")
    given_up = node.run("forward", "cancel", "3", "--by", "Dr. Curie", "--reason", "the archive has it")

    assert status == 1
    assert "PACS               1     1        1" in listed
    assert "parked for PACS, instance 1.2.3.2: refused" in listed
    assert "status 0xa900" in listed
    assert "other pixels" in listed
    assert again == (0, "1 instance sent again\n")
    assert given_up == (0, "1 forward cancelled\n")
    assert [node.state(number)[0] for number in (1, 2, 3)] == ["waiting", "waiting", "superseded"]
    assert node.state(3)[1] == "by Dr. Curie: the archive has it"
    assert node.run("forward", "list")[0] == 0
    assert node.run("forward", "retry")[0] == 1


def test_nothing_is_given_up_without_a_name_and_a_reason(node: Node) -> None:
    node.forward(1, ForwardState.PARKED, ForwardReason.REFUSED)

    assert node.run("forward", "cancel", "1", "--by", " ", "--reason", "x")[0] == 2
    assert node.run("forward", "cancel", "1", "--by", "x")[0] == 2
    assert node.state(1)[0] == "parked"


def test_status_names_what_is_refused_and_what_is_missing(node: Node) -> None:
    node.forward(1, ForwardState.PARKED, ForwardReason.REFUSED)
    gap = {"destination": "PACS", "study_instance_uid": "1.2", "checked_at": 1.0, "message": ""}
    counts = {"n_expected": 9, "n_found": 7, "missing": ["1.2.3.8", "1.2.3.9"]}
    reconciliations.keep(node.database, Reconciliation(outcome=Reconciled.MISSING, **gap, **counts))  # type: ignore[arg-type]

    status, told = node.run("status", "--json")
    concerns = {one["kind"]: one["text"] for one in json.loads(told)["concerns"]}
    gaps = node.run("forward", "gaps")

    assert status == 1
    assert concerns["forward_held"] == "instances that are not forwarded: 1 refused"
    assert concerns["forward_missing"] == "2 instances of 1 study that it has acknowledged are not there"
    assert gaps[0] == 1
    assert "1 study, 1 not complete" in gaps[1]


def test_the_rule_that_takes_a_file_is_named_and_why_the_others_do_not(tmp_path: Path) -> None:
    node = Node(
        tmp_path,
        forward=[{"from": "CT1", "station": "ROOM_3", "to": ["PACS"]}, {"image_type": "AXIAL", "to": ["PACS"]}],
        returns=[{"modality": "MR", "to": ["PACS"]}, {"to": ["PACS"]}],
    )
    [path] = ct_series(tmp_path / "ct", "x", slices=[0], StationName="CT_ROOM_1", ImageType=["ORIGINAL", "AXIAL"])

    status, told = node.run("config", "check", "--against", "--from", "CT1", str(path))

    assert status == 0, told
    assert "forward           rule 2: to PACS" in told
    assert "not rule 1: station 'ROOM_3', found 'CT_ROOM_1'" in told
    assert "returns           rule 2: to PACS" in told
    assert "not rule 1: modality 'MR', found 'CT'" in told
    assert node.run("config", "check", "--against")[0] == 2
