"""Pulling from an archive: Orthanc, and archives that behave as no archive should."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pydicom
import pytest
import sqlalchemy as sa
from pydicom import Dataset
from pynetdicom import AE, build_context, evt
from support.bench import Bench
from support.orthanc import Orthanc
from support.series import EXPLICIT_LITTLE, ct_series, series_uid
from support.waiting import free_port, need, until

from mediqa_node.decode.syntaxes import decodable_transfer_syntaxes
from mediqa_node.domain.errors import MediqaError, PeerRefused, PeerUnavailable, QueryUnanswered
from mediqa_node.domain.health import Heartbeat
from mediqa_node.domain.peer import DicomWeb, Peer
from mediqa_node.domain.policy import DeliveryRules, ReceiverPolicy
from mediqa_node.network import retrieve
from mediqa_node.network.listeners import Listener, listen
from mediqa_node.network.receiver import Receiver
from mediqa_node.pipeline import flow, pull
from mediqa_node.pipeline.pull import Pulled, Wanted, description_filter, find
from mediqa_node.storage import pulls
from mediqa_node.storage.heartbeats import write_heartbeat
from mediqa_node.storage.pull_tables import pulls as table

DAY = date(2026, 11, 20)
WANTED = Wanted(since=DAY, until=DAY, modality="CT")


def nothing(done: int, total: int) -> None:
    """Show no progress."""


class Here:
    """A bench whose receiver listens, so that an archive can send to it."""

    def __init__(self, folder: Path, **policy: Any) -> None:
        self.bench = Bench(folder, **policy)
        self.bench.now = time.time()
        self.beats()
        self.receiver: Receiver
        self.receiver, self.writer = flow.receive(
            self.bench.database,
            self.bench.spool,
            ReceiverPolicy(),
            ae_title="MEDIQA",
            listeners=[Listener(listen("127.0.0.1", 0))],
            transfer_syntaxes=decodable_transfer_syntaxes(),
        )
        threading.Thread(target=self.receiver.serve, daemon=True).start()

    @property
    def port(self) -> int:
        return self.receiver.port

    def beats(self) -> None:
        """Write the heartbeat of the receiver."""
        beat = Heartbeat(
            name="receiver", host="here", pid=1, started_at=0.0, at=self.bench.now, sweeps={},
            n_associations=0, max_associations=1,
        )  # fmt: skip
        write_heartbeat(self.bench.database, beat)

    def close(self) -> None:
        self.receiver.stop(within_s=1.0)
        self.writer.stop()
        self.bench.close()

    def pull(self, peer: Peer, found: Pulled) -> Pulled:
        """Pull what was found."""
        pull.pull(self.bench.node, peer, found, nothing)
        return found

    def states(self) -> dict[str, str]:
        """Return the state of each series that was asked for."""
        with self.bench.database.read() as connection:
            return dict(connection.execute(sa.select(table.c.series_instance_uid, table.c.state)).all())


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    made = Here(tmp_path / "bench", delivery=DeliveryRules(timeout_s=5.0))
    yield made
    made.close()


# ── Orthanc ──────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Orthanc]:
    need(request.config, "/usr/sbin/Orthanc")
    running = Orthanc(tmp_path_factory.mktemp("orthanc")).start()
    yield running
    running.stop()


@pytest.fixture
def archive(orthanc: Orthanc) -> Iterator[Orthanc]:
    """An archive that holds nothing, and knows nobody."""
    yield orthanc
    for patient in orthanc.get("/patients"):
        orthanc.delete(f"/patients/{patient}")
    for modality in orthanc.get("/modalities"):
        orthanc.delete(f"/modalities/{modality}")


def of(archive: Orthanc) -> Peer:
    return Peer(name="PACS", ae_title=archive.ae_title, host="127.0.0.1", port=archive.dicom_port)


def upload(archive: Orthanc, paths: list[Path]) -> str:
    for path in paths:
        archive.upload(path.read_bytes())
    return series_uid(paths)


def test_series_of_an_archive_are_pulled_once_and_marked(archive: Orthanc, here: Here, tmp_path: Path) -> None:
    wanted = upload(archive, ct_series(tmp_path / "a", "a", SeriesDescription="Thorax nativ 1.0"))
    before = upload(archive, ct_series(tmp_path / "b", "b", SeriesDescription="THORAX", StudyDate="20261119"))
    upload(archive, ct_series(tmp_path / "c", "c", SeriesDescription="Topogramm"))
    upload(archive, ct_series(tmp_path / "d", "d", SeriesDescription="Thorax", StudyDate="20261118"))
    upload(archive, ct_series(tmp_path / "e", "e", SeriesDescription="Thorax", Modality="PT"))
    archive.knows("node", "MEDIQA", here.port)
    asked = Wanted(
        since=date(2026, 11, 19), until=DAY, modality="CT", has_description=description_filter("^thorax"), at_most=1
    )
    rest = Wanted(since=asked.since, until=DAY, modality="CT", has_description=asked.has_description)

    first = here.pull(of(archive), find(here.bench.node, of(archive), asked, nothing))
    again = here.pull(of(archive), find(here.bench.node, of(archive), rest, nothing))
    third = find(here.bench.node, of(archive), rest, nothing)

    assert [one.series_instance_uid for one in first.series] == [before], "the oldest first"
    assert [one.series_instance_uid for one in again.series] == [wanted]
    assert (first.n_pulled, first.n_instances, again.n_pulled, again.n_here) == (1, 5, 1, 1)
    assert (third.series, third.n_here) == ([], 2)
    assert here.states() == {before: "pulled", wanted: "pulled"}
    assert here.bench.series(wanted).pulled
    assert here.bench.series(wanted).n_instances == 5


def test_a_pull_that_was_killed_goes_on_and_what_is_here_live_is_left_alone(
    archive: Orthanc, here: Here, tmp_path: Path
) -> None:
    paths = ct_series(tmp_path / "a", "a")
    interrupted, live = upload(archive, paths), ct_series(tmp_path / "b", "b")
    upload(archive, live)
    archive.knows("node", "MEDIQA", here.port)
    here.bench.receive_all(live)
    for path in paths[:2]:
        here.bench.receive(path, association="a2", aet="PEERPACS", moved_for="MEDIQA")
    found = find(here.bench.node, of(archive), WANTED, nothing)
    with here.bench.database.write() as connection:
        pulls.note_asked(here.bench.database, connection, found.series[0], peer=of(archive), ae_title="MEDIQA", at=1.0)

    found = here.pull(of(archive), find(here.bench.node, of(archive), WANTED, nothing))

    assert ([one.series_instance_uid for one in found.series], found.n_here) == ([interrupted], 1)
    assert here.states() == {interrupted: "pulled"}
    assert here.bench.series(interrupted).n_instances == 5


def test_an_archive_that_does_not_know_the_node_or_another_under_its_title_ends_the_pull(
    archive: Orthanc, here: Here, tmp_path: Path
) -> None:
    upload(archive, ct_series(tmp_path / "a", "a"))
    found = find(here.bench.node, of(archive), WANTED, nothing)

    here.pull(of(archive), found)
    assert "sent 0 instances" in next(iter(found.failures.values()))
    assert list(here.states().values()) == ["failed"]

    elsewhere = AE(ae_title="MEDIQA")
    elsewhere.add_supported_context("1.2.840.10008.5.1.4.1.1.2")
    server = elsewhere.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0)])
    archive.knows("node", "MEDIQA", server.server_address[1])
    try:
        with pytest.raises(PeerRefused, match="none has arrived"):
            here.pull(of(archive), found)
    finally:
        server.shutdown()


# ── archives out of a bad dream ──────────────────────────────────────────────


class OddArchive:
    """Answers C-FIND with one series and C-MOVE as a test says, without sending anything."""

    def __init__(self, move: Callable[[evt.Event], Iterator[Any]]) -> None:
        entity = AE(ae_title="ODD")
        entity.add_supported_context("1.2.840.10008.5.1.4.1.2.2.1")
        entity.add_supported_context("1.2.840.10008.5.1.4.1.2.2.2")
        handlers: list[Any] = [(evt.EVT_C_FIND, self._find), (evt.EVT_C_MOVE, move)]
        self._server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        port = self._server.server_address[1]
        self.peer = Peer(name="ODD", ae_title="ODD", host="127.0.0.1", port=port)
        self.refused: set[str] = set()
        self.answers: dict[str, list[Dataset]] = {"STUDY": [matching(StudyInstanceUID="1.2")], "SERIES": []}
        self.answers["SERIES"] = [matching(StudyInstanceUID="1.2", SeriesInstanceUID="1.2.3", Modality="CT")]

    def _find(self, event: evt.Event) -> Iterator[Any]:
        if event.identifier.get("StudyInstanceUID") in self.refused:
            yield 0xC000, None
            return
        for answer in self.answers[event.identifier.QueryRetrieveLevel]:
            answer.QueryRetrieveLevel = event.identifier.QueryRetrieveLevel
            yield 0xFF00, answer

    def close(self) -> None:
        self._server.shutdown()


def matching(**values: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


@pytest.fixture
def odd(here: Here) -> Iterator[Callable[..., OddArchive]]:
    made: list[OddArchive] = []

    def start(*steps: float) -> OddArchive:
        """`steps`: seconds before each of the sub-operations, which all send to the node."""

        def move(event: evt.Event) -> Iterator[Any]:
            yield "127.0.0.1", here.port, {"contexts": [build_context("1.2.840.10008.5.1.4.1.1.2", EXPLICIT_LITTLE)]}
            yield len(steps)
            for i, pause_s in enumerate(steps):
                time.sleep(pause_s)
                ds = pydicom.dcmread(paths[i])
                yield 0xFF00, ds

        paths = ct_series(here.bench.spool.root.parent / "odd", "odd")
        made.append(OddArchive(move))
        made[-1].answers["SERIES"][0].SeriesInstanceUID = series_uid(paths)
        return made[-1]

    yield start
    for archive in made:
        archive.close()


def test_the_limit_is_the_time_between_two_responses(
    odd: Callable[..., OddArchive], here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieve, "BETWEEN_S", 0.6)
    slow, silent = odd(0.25, 0.25, 0.25, 0.25), odd(0.0, 3.0)

    found = here.pull(slow.peer, find(here.bench.node, slow.peer, WANTED, nothing))
    assert (found.n_pulled, found.n_instances) == (1, 4)

    with here.bench.database.write() as connection:
        connection.execute(sa.delete(table))
    began = time.monotonic()
    found = here.pull(silent.peer, find(here.bench.node, silent.peer, WANTED, nothing))
    assert time.monotonic() - began < 2.5
    assert "broke off C-MOVE after 1 instances" in next(iter(found.failures.values()))


def test_a_silent_archive_fails_a_series_and_a_few_in_a_row_end_the_pull(here: Here, tmp_path: Path) -> None:
    peer = Peer(name="GONE", ae_title="GONE", host="127.0.0.1", port=free_port())
    series = [pull.ArchivedSeries(study_instance_uid="1.2", series_instance_uid=f"1.2.{i}") for i in range(9)]

    with pytest.raises(PeerUnavailable, match="not reachable"):
        here.pull(peer, found := Pulled(series=series))

    assert len(found.failures) == 3


@pytest.mark.parametrize(
    ("study", "series"),
    [
        ({"StudyInstanceUID": "not a uid"}, {"SeriesInstanceUID": "1.2.3"}),
        ({"StudyInstanceUID": "1.2", "StudyDate": "19990101"}, {"SeriesInstanceUID": "1.2.3"}),
        ({"StudyInstanceUID": "1.2", "ModalitiesInStudy": ["MR", "SR"]}, {"SeriesInstanceUID": "1.2.3"}),
        ({"StudyInstanceUID": "1.2"}, {"SeriesInstanceUID": "../../etc/passwd"}),
        ({"StudyInstanceUID": "1.2"}, {"SeriesInstanceUID": "1.2.3", "Modality": "MR"}),
    ],
)
def test_what_was_not_asked_for_is_not_pulled(
    odd: Callable[..., OddArchive], here: Here, study: dict[str, Any], series: dict[str, Any]
) -> None:
    archive = odd(0.0)
    archive.answers["STUDY"] = [matching(**study)]
    archive.answers["SERIES"] = [matching(**{"StudyInstanceUID": "1.2", "Modality": "CT"} | series)]

    assert find(here.bench.node, archive.peer, WANTED, nothing).series == []


def test_a_series_that_grows_in_the_archive_is_pulled_again_and_one_that_is_not_whole_has_failed(
    odd: Callable[..., OddArchive], here: Here
) -> None:
    archive = odd(0.0, 0.0)
    [described] = archive.answers["SERIES"]
    described.NumberOfSeriesRelatedInstances = 2
    assert here.pull(archive.peer, find(here.bench.node, archive.peer, WANTED, nothing)).n_pulled == 1
    assert find(here.bench.node, archive.peer, WANTED, nothing).n_here == 1

    described.NumberOfSeriesRelatedInstances = 5
    found = here.pull(archive.peer, find(here.bench.node, archive.peer, WANTED, nothing))

    assert list(found.failures.values()) == ["ODD has 5 instances of it, and 2 are here"]
    assert list(here.states().values()) == ["failed"]
    assert find(here.bench.node, archive.peer, WANTED, nothing).n_here == 0, "it is asked for again"


def test_a_study_that_the_archive_cannot_answer_for_costs_no_other(odd: Callable[..., OddArchive], here: Here) -> None:
    archive = odd(0.0)
    archive.answers["STUDY"] = [matching(StudyInstanceUID=uid) for uid in ("1.2.9", "1.2")]
    archive.refused = {"1.2.9"}

    found = find(here.bench.node, archive.peer, WANTED, nothing)

    assert len(found.series) == 1
    assert list(found.failures) == ["study 1.2.9"]
    assert "0xc000" in found.failures["study 1.2.9"]

    archive.answers["STUDY"] = [matching(StudyInstanceUID=f"1.2.{i}") for i in range(9)]
    archive.refused = {f"1.2.{i}" for i in range(9)}
    with pytest.raises(QueryUnanswered):
        find(here.bench.node, archive.peer, WANTED, nothing)


# ── the node's own limits ────────────────────────────────────────────────────


def test_nothing_is_asked_for_while_no_receiver_runs(here: Here) -> None:
    here.bench.now += 60

    with pytest.raises(MediqaError, match="the node does not run"):
        pull.require_receiver(here.bench.node)


def test_a_pull_waits_while_the_node_has_enough_to_do_or_no_room(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(pull, "AT_WORK_AT_MOST", 2)
    for name in ("a", "b"):
        here.bench.receive_all(ct_series(tmp_path / name, name), association=name)
    room = [False]
    monkeypatch.setattr(here.bench.spool, "has_room", lambda: room[0])
    waiting = threading.Thread(target=pull._wait_for_room, args=(here.bench.node,))
    waiting.start()

    waiting.join(0.2)
    assert waiting.is_alive()
    here.bench.now += 5
    here.beats()
    here.bench.complete_series()
    here.bench.work()
    waiting.join(0.2)
    assert waiting.is_alive(), "the work is done, and there is no room"
    room[0] = True
    until(lambda: not waiting.is_alive(), "the pull goes on")


def test_a_peer_that_speaks_dicomweb_is_not_pulled_from(here: Here) -> None:
    peer = Peer(name="WEB", dicomweb=DicomWeb(url="http://127.0.0.1:1"))

    with pytest.raises(PeerRefused, match="C-MOVE"):
        find(here.bench.node, peer, WANTED, nothing)


@pytest.mark.parametrize(
    ("pattern", "found"), [("", True), ("thorax", True), ("^NATIV", False), ("(a+)+$", False), ("x{3}", False)]
)
def test_descriptions_are_searched_in_any_case_and_in_linear_time(pattern: str, found: bool) -> None:
    assert description_filter(pattern)("THORAX nativ " + "x" * 2 + "b" * 100_000) is found


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?=a)"])
def test_a_pattern_that_cannot_be_searched_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="no regular expression"):
        description_filter(pattern)
