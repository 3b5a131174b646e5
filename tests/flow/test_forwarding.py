"""Scanner → node → archive, with real processes: nothing lost, nothing twice, no loop, reports after images."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support import trial
from support.node import Node
from support.orthanc import Orthanc, dataset_digest, evidence_instances
from support.outside import Sent
from support.scripted import scripted
from support.senders import storescu
from support.series import ct_series, series_uid
from support.waiting import need, until

from mediqa_node.storage.forward_tables import forwards
from mediqa_node.system.failpoint import FORWARDER

pytestmark = pytest.mark.peers

SCANNERS = {"from": ["CT_ROOM_1", "CT_ROOM_2"], "to": ["PACS"]}


@pytest.fixture
def pacs(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Orthanc]:
    need(request.config, "/usr/sbin/Orthanc", "/usr/bin/storescu")
    orthanc = Orthanc(tmp_path / "pacs").start()
    yield orthanc
    orthanc.stop()


@pytest.fixture
def new_node(tmp_path: Path, pacs: Orthanc) -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(**settings: Any) -> Node:
        peer = {"ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.dicom_port, "commitment": True}
        made.append(Node(tmp_path / "node", peers={"PACS": peer}, forward=[SCANNERS], **settings))
        pacs.knows("node", "MEDIQA", made[-1].port)
        return made[-1]

    yield make
    for node in made:
        node.close()


def states(node: Node) -> list[str]:
    with node.database.read() as connection:
        return list(connection.execute(sa.select(forwards.c.state).order_by(forwards.c.id)).scalars())


def held_by(pacs: Orthanc) -> dict[str, list[str]]:
    """Return the digest of every image that the archive holds, by SOP Instance UID."""
    found: dict[str, list[str]] = {}
    for entry in pacs.find("Instance", Modality="CT"):
        uid = entry["MainDicomTags"]["SOPInstanceUID"]
        found.setdefault(uid, []).append(dataset_digest(pacs.file(entry["ID"])))
    return found


def assert_all_arrived_once(node: Node, pacs: Orthanc, sent: Sent) -> None:
    until(lambda: set(states(node)) and set(states(node)) <= {"sent", "confirmed"}, "everything is forwarded")
    held = held_by(pacs)
    assert set(held) == set(sent.acknowledged)
    assert all(held[uid] == [sent.digests[uid]] for uid in sent.acknowledged), "bytes differ, or it is there twice"


def send(node: Node, sent: Sent, paths: list[Path], aet: str = "CT_ROOM_1") -> None:
    statuses = storescu(node.port, paths, aet=aet)
    assert set(statuses.values()) == {0}
    sent.note(paths, statuses)


def coerce(pacs: Orthanc, **values: str) -> None:
    """Have the archive hold the images with other attributes under the same UIDs, as archives coerce what they take."""
    keep = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    images = pacs.find("Instance", Modality="CT")
    change = {"Replace": values, "Keep": keep, "Force": True}
    changed = [pacs.post_for_bytes(f"/instances/{image['ID']}/modify", change) for image in images]
    for image in images:
        pacs.delete(f"/instances/{image['ID']}")
    for content in changed:
        pacs.upload(content)


def test_a_study_reaches_the_archive_before_its_report_and_does_not_come_back(
    new_node: Callable[..., Node], pacs: Orthanc, tmp_path: Path
) -> None:
    node, sent = new_node().start(), Sent()
    paths = ct_series(tmp_path / "ct", "forwarded", slices=range(6))

    send(node, sent, paths)
    assert_all_arrived_once(node, pacs, sent)
    until(lambda: pacs.reports_of(series_uid(paths)), "the report is there")
    [report] = pacs.reports_of(series_uid(paths))
    last_image = max(int(one["IndexInSeries"] or 0) for one in pacs.find("Instance", Modality="CT"))
    coerce(pacs, InstitutionName="COERCED", RequestingService="WARD 3")
    [study] = pacs.find("Study")
    pacs.send(study["ID"], "node")  # the archive routes everything back, the report with it
    time.sleep(1.0)
    until(lambda: "waiting" not in states(node), "nothing is under way")

    assert last_image == 6
    assert evidence_instances(report) == set(sent.acknowledged)
    until(lambda: set(states(node)) == {"confirmed"}, "the archive has committed to the images")
    assert len(states(node)) == 6, "what comes from the archive goes nowhere"
    assert len(pacs.reports()) == 1


@pytest.mark.acceptance
def test_the_archive_gets_what_came_while_it_was_down_and_the_node_was_killed(
    new_node: Callable[..., Node], pacs: Orthanc, tmp_path: Path
) -> None:
    node, sent = new_node(), Sent()
    token = tmp_path / "token"
    token.touch()
    node.start(environment={"MEDIQA_FAILPOINT": f"before-forward-commit@{token}"})
    send(node, sent, ct_series(tmp_path / "a", "first", slices=range(4)))
    assert_all_arrived_once(node, pacs, sent)
    assert not token.exists(), "the forwarder was killed between the answer and its record"

    pacs.stop()
    send(node, sent, ct_series(tmp_path / "b", "second", slices=range(4)), aet="CT_ROOM_2")
    node.kill("forwarder")
    node.kill("receiver")
    node.kill_group()
    pacs.start()
    node.start()

    assert_all_arrived_once(node, pacs, sent)


@pytest.mark.acceptance
def test_what_the_archive_lost_is_found_by_the_command(
    new_node: Callable[..., Node], pacs: Orthanc, tmp_path: Path
) -> None:
    node, sent = new_node().start(), Sent()
    send(node, sent, ct_series(tmp_path / "ct", "lost", slices=range(3)))
    assert_all_arrived_once(node, pacs, sent)
    assert node.command("forward", "reconcile").returncode == 0
    lost = pacs.find("Instance", Modality="CT")[0]
    pacs.delete(f"/instances/{lost['ID']}")

    found = node.command("forward", "reconcile", "--json", "--send-again")
    told = json.loads(found.stdout)
    assert_all_arrived_once(node, pacs, sent)

    assert found.returncode == 1
    assert [one["missing"] for one in told["studies"]] == [[lost["MainDicomTags"]["SOPInstanceUID"]]]
    assert told["sent_again"] == 1
    assert node.command("forward", "reconcile").returncode == 0
    assert node.command("forward", "gaps").returncode == 0


@pytest.mark.acceptance
@pytest.mark.parametrize("place", FORWARDER)
def test_killed_at_each_place_everything_arrives_once(
    new_node: Callable[..., Node], pacs: Orthanc, tmp_path: Path, place: str
) -> None:
    node, sent = new_node(), Sent()
    n_slices = trial.rounds(6, trial.dice("forward", place).randint(1, 16))
    token = tmp_path / "token"
    token.touch()
    node.start(environment={"MEDIQA_FAILPOINT": f"{place}@{token}"})

    send(node, sent, ct_series(tmp_path / "ct", place, slices=range(n_slices)))

    assert_all_arrived_once(node, pacs, sent)
    assert not token.exists()


@pytest.mark.acceptance
def test_five_minutes_without_the_archive_and_ten_kills(
    new_node: Callable[..., Node], pacs: Orthanc, tmp_path: Path
) -> None:
    node, sent = new_node().start(), Sent()
    pacs.stop()
    down_since = time.monotonic()
    for i in range(10):
        send(node, sent, ct_series(tmp_path / f"ct{i}", f"kill {i}", slices=range(5), patient_id=f"P{i}"))
        if i % 3 == 2:
            node.kill_group()
            node.start()
        else:
            node.kill(("forwarder", "receiver", "courier")[i % 3])
            until(node.answers_echo, "the receiver is back")
    while time.monotonic() - down_since < 300:
        time.sleep(1)
    concerns = json.loads(node.command("status", "--json").stdout)["destinations"]
    assert [one["n_forwards"] for one in concerns if one["name"] == "PACS"] == [50]
    pacs.start()

    assert_all_arrived_once(node, pacs, sent)
    until(lambda: len(pacs.reports()) == 10, "every series has its report")
    with node.database.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(forwards)).scalar_one() == 50


@pytest.mark.acceptance
def test_a_class_that_the_archive_refuses_is_refused_to_the_scanner(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    need(request.config, "/usr/bin/storescu")
    with scripted(classes=["1.2.840.10008.5.1.4.1.1.4"]) as pacs:
        peer = {"ae_title": "SCRIPTED", "host": "127.0.0.1", "port": pacs.port}
        node = Node(tmp_path / "node", peers={"PACS": peer}, forward=[SCANNERS]).start()
        until(lambda: node.log("destination accepts"), "the archive was asked what it accepts")
        paths = ct_series(tmp_path / "ct", "refused", slices=range(2))

        until(lambda: not storescu(node.port, paths), "the node offers no more than the archive does")
        node.close()
