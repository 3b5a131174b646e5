"""Each guard must be seen to bite: a node that breaks its promise is found out by the checker from outside."""

import uuid
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset
from support.bench import Bench
from support.orthanc import evidence_instances
from support.outside import Sent, differences
from support.proxy import Proxy
from support.receiving import Listening
from support.scripted import ScriptedPacs, scripted
from support.senders import Scu
from support.series import ct_series

from mediqa_node.dicom.report import build as report_builder
from mediqa_node.domain.peer import Peer
from mediqa_node.network import statuses
from mediqa_node.pipeline.checks.verify import verify
from mediqa_node.pipeline.intake import SpoolingIntake
from mediqa_node.storage import outbox

Listen = Callable[..., Listening]


def sent_to(port: int, paths: list[Path]) -> Sent:
    """Send files and note what the sender is told."""
    sent = Sent()
    with Scu(port, paths) as scanner:
        statuses = {path: scanner.send(path) for path in paths}
    sent.note(paths, {path: status for path, status in statuses.items() if status is not None})
    return sent


def kept(sent: Sent, spool: Path) -> list[str]:
    """Return what is wrong with the spool; reports are not asked for."""
    return [line for line in differences(sent, spool, []) if "current reports" not in line]


def test_a_node_that_keeps_its_promise_gives_no_cause(listening: Listen, tmp_path: Path) -> None:
    node = listening()
    sent = sent_to(node.port, ct_series(tmp_path / "ct", "kept"))

    assert len(sent.acknowledged) == 5
    assert kept(sent, node.spool.root) == []


def test_a_node_that_answers_before_the_instance_is_kept_is_found_out(
    listening: Listen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_early(self: SpoolingIntake, incoming: object, *_: object) -> None:
        self.discard(incoming)  # type: ignore[arg-type]

    monkeypatch.setattr(SpoolingIntake, "finish", too_early)
    node = listening()

    sent = sent_to(node.port, ct_series(tmp_path / "ct", "early"))

    assert len(sent.acknowledged) == 5
    assert sum("is not in the spool" in line for line in kept(sent, node.spool.root)) == 5


def test_a_node_that_keeps_other_bytes_is_found_out(listening: Listen, tmp_path: Path) -> None:
    node = listening()
    sent = sent_to(node.port, ct_series(tmp_path / "ct", "changed"))
    [first, *_] = node.spool.files()
    with node.spool.path(first).open("r+b") as file:
        file.seek(-10, 2)
        file.write(b"\x01\x02")

    assert sum("its spooled copy differs" in line for line in kept(sent, node.spool.root)) == 1


def test_a_node_that_leaves_temporary_files_is_found_out(listening: Listen, tmp_path: Path) -> None:
    node = listening()
    sent = sent_to(node.port, ct_series(tmp_path / "ct", "temporary"))
    (node.spool.root / "tmp" / uuid.uuid4().hex).write_bytes(b"half")

    assert any("temporary file left" in line for line in kept(sent, node.spool.root))


# ── reports ──────────────────────────────────────────────────────────────────


@pytest.fixture
def pacs() -> Iterator[ScriptedPacs]:
    """A PACS that stores what it gets."""
    with scripted() as running:
        yield running


def archived(pacs: ScriptedPacs) -> list[Dataset]:
    """Return what an archive would hold: one object for each UID, the first that came."""
    found: dict[str, Dataset] = {}
    for content in pacs.received:
        ds = pydicom.dcmread(BytesIO(content), force=True)
        found.setdefault(str(ds.SOPInstanceUID), ds)
    return list(found.values())


def lost_answer(tmp_path: Path, pacs: ScriptedPacs) -> list[str]:
    """Deliver a series to a PACS whose first answer is lost; return what the checker finds."""
    proxy = Proxy(pacs.port)
    proxy.swallow = 1
    bench = Bench(tmp_path / "bench", peers=[Peer(name="P", ae_title="SCRIPTED", host="127.0.0.1", port=proxy.port)])
    paths = ct_series(tmp_path / "ct", "x")
    bench.receive_all(paths)
    bench.pass_time(60)
    bench.close()
    proxy.stop()
    sent = Sent()
    sent.note(paths, dict.fromkeys(paths, 0x0000))
    return differences(sent, bench.spool.root, archived(pacs))


def test_a_lost_answer_makes_no_second_report(tmp_path: Path, pacs: ScriptedPacs) -> None:
    assert lost_answer(tmp_path, pacs) == []
    assert len(pacs.received) == 2


def test_a_node_that_names_its_reports_at_random_is_found_out(
    tmp_path: Path, pacs: ScriptedPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_builder, "_instance_uid", lambda *_: f"2.25.{uuid.uuid4().int}")
    monkeypatch.setattr(outbox, "find_report", lambda *_: None)  # built anew each time, as without an outbox
    monkeypatch.setattr(outbox, "save_report", lambda _database, _connection, row: row)

    assert any("has 2 current reports" in line for line in lost_answer(tmp_path, pacs))


def test_a_node_that_takes_no_for_an_answer_is_found_out(
    tmp_path: Path, pacs: ScriptedPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statuses, "STORED", frozenset(range(0x10000)))
    pacs.statuses = [0xC000]
    bench = Bench(tmp_path / "bench", peers=[Peer(name="P", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)])
    paths = ct_series(tmp_path / "ct", "x")
    bench.receive_all(paths)
    bench.pass_time(60)
    bench.close()
    sent = Sent()
    sent.note(paths, dict.fromkeys(paths, 0x0000))

    assert any("has 0 current reports" in line for line in differences(sent, bench.spool.root, []))
    assert [delivery.state for delivery in bench.deliveries(next(iter(sent.series)))] == ["sent"], "and believes it"


def test_a_report_of_images_that_nobody_sent_is_found_out(tmp_path: Path, pacs: ScriptedPacs) -> None:
    lost_answer(tmp_path, pacs)
    [report] = archived(pacs)

    assert any("nobody sent" in line for line in differences(Sent(), tmp_path / "bench" / "spool", [report]))
    assert len(evidence_instances(report)) == 5


def test_files_that_were_never_entered_are_found_by_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path / "bench")
    monkeypatch.setattr("support.bench.record", lambda *_: None)
    bench.receive_all(ct_series(tmp_path / "ct", "x"))

    found = verify(bench.node, ask_peers=False, advance=lambda *_: None)

    assert len([line for line in found.problems if line.startswith("spooled file without a row")]) == 5
    bench.close()
