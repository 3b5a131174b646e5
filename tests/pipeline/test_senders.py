"""Fault F14: how real senders send. One report for each series, and no revision."""

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.encaps import encapsulate
from support.bench import Bench
from support.scripted import ScriptedPacs, scripted
from support.series import ct_series, reject_note, series_uid

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import ScorePolicy
from mediqa_node.domain.rules import PrimaryRule, ReturnRule
from mediqa_node.storage import clock, index
from mediqa_node.storage.clock import ClockRow


@pytest.fixture
def pacs() -> Iterator[ScriptedPacs]:
    """A PACS that stores what it gets."""
    with scripted() as running:
        yield running


@pytest.fixture
def bench(tmp_path: Path, pacs: ScriptedPacs) -> Iterator[Bench]:
    """A bench with the settings that a hospital starts with."""
    peers = [
        Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port),
        Peer(name="QC", ae_title="QC", host="127.0.0.1", port=1, authority=True),
    ]
    made = Bench(tmp_path / "bench", peers=peers, returns=[ReturnRule(to=("PACS",))])
    yield made
    made.close()


def test_one_association_per_instance_with_pauses_makes_one_report(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    paths = ct_series(tmp_path, "x", slices=range(8))
    for i, path in enumerate(paths):
        bench.receive(path, association=f"a{i}")
        bench.release(f"a{i}")
        bench.pass_time(5)

    bench.pass_time(300)

    row = bench.series(series_uid(paths))
    assert (row.state, row.revision, row.n_associations) == ("DELIVERED", 1, 8)
    assert len(pacs.received) == 1


def test_an_association_held_open_for_an_hour_makes_one_report_for_each_series(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    sent = [ct_series(tmp_path / f"{i}", f"series {i}") for i in range(4)]
    for paths in sent:  # slices as they are reconstructed, then a pause until the next scan
        for path in paths:
            bench.receive(path, association="open")
            bench.pass_time(20, step_s=2)
        bench.pass_time(900 - 100, step_s=5)

    assert len(pacs.received) == 4, "nobody waits for the end of the association"
    bench.release("open")
    bench.pass_time(200, step_s=5)
    assert [bench.series(series_uid(paths)).revision for paths in sent] == [1, 1, 1, 1]
    assert len(pacs.received) == 4


def test_a_series_over_two_titles_makes_one_report(bench: Bench, pacs: ScriptedPacs, tmp_path: Path) -> None:
    paths = ct_series(tmp_path, "x", slices=range(10))
    for i, path in enumerate(paths):
        bench.receive(path, association=f"a{i % 2}", aet=f"CT_{i % 2}")
        bench.now += 0.5
    bench.release("a0")
    bench.release("a1")

    bench.pass_time(300)

    row = bench.series(series_uid(paths))
    assert (row.state, row.revision, row.completion) == ("DELIVERED", 1, "quiet")
    assert len(pacs.received) == 1


def test_twelve_reconstructions_of_one_event_make_one_report(bench: Bench, pacs: ScriptedPacs, tmp_path: Path) -> None:
    sent = [
        ct_series(tmp_path / f"{i}", f"recon {i}", study="s", event="e", kernel=f"B{20 + i}f", slices=range(4))
        for i in range(12)
    ]
    for i, paths in enumerate(sent):
        bench.receive_all(paths, association=f"a{i}")

    bench.pass_time(200, step_s=2)

    ends = [bench.series(series_uid(paths)) for paths in sent]
    assert [str(row.state) for row in ends].count("DELIVERED") == 1
    refused = [row.reason.code for row in ends if row.state == "NOT_SCORED"]
    assert len(refused) == 11
    assert set(refused) == {"other_reconstruction"}
    assert len(pacs.received) == 1


def test_a_reconstruction_that_cannot_be_scored_does_not_speak_for_its_acquisition(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    broken = ct_series(tmp_path / "0", "broken", study="s", event="e", slices=range(3))
    for path in broken:
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"
        ds.PixelData = encapsulate([b"no JPEG 2000 at all."])
        ds.save_as(path)
    bench.receive_all(broken, association="a0")
    bench.pass_time(20)
    assert bench.series(series_uid(broken)).state == "NOT_SCORED"

    bench.receive_all(good := ct_series(tmp_path / "1", "good", study="s", event="e"), association="a1")
    bench.pass_time(20)

    assert bench.series(series_uid(good)).state == "DELIVERED"


def test_a_site_may_choose_the_reconstruction(tmp_path: Path, pacs: ScriptedPacs) -> None:
    peer = Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)
    bench = Bench(tmp_path / "bench", peers=[peer], score=ScorePolicy(primary=(PrimaryRule(kernel="^B30"),)))
    soft, bone = (
        ct_series(tmp_path / kernel, kernel, study="s", event="e", kernel=kernel) for kernel in ("B30f", "B70f")
    )
    bench.receive_all(bone, association="a1")
    bench.receive_all(soft, association="a2")

    bench.pass_time(20)

    assert bench.series(series_uid(soft)).state == "DELIVERED"
    assert bench.series(series_uid(bone)).reason.code == "no_primary_rule"
    bench.close()


def test_a_prior_from_the_archive_is_harvested_and_not_scored(tmp_path: Path, pacs: ScriptedPacs) -> None:
    peer = Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)
    bench = Bench(tmp_path / "bench", peers=[peer], score=ScorePolicy(max_age_days=3))
    bench.receive_all(paths := ct_series(tmp_path / "old", "old", StudyDate="20190102"))

    bench.pass_time(20)

    assert bench.series(series_uid(paths)).reason.code == "too_old"
    bench.close()


def test_no_study_is_too_old_by_a_clock_that_was_set_forward(tmp_path: Path, pacs: ScriptedPacs) -> None:
    peer = Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)
    bench = Bench(tmp_path / "bench", peers=[peer], score=ScorePolicy(max_age_days=3))
    paused = ClockRow(boot_id="", offset_s=0.0, seen_at=bench.now, paused_until=bench.now + 86400)
    with bench.database.write() as connection:
        clock.save(bench.database, connection, paused)
    bench.receive_all(paths := ct_series(tmp_path / "today", "today", StudyDate="20190102"))

    bench.pass_time(20)

    assert bench.series(series_uid(paths)).state == "DELIVERED"
    bench.close()


def test_a_sender_that_splits_is_never_taken_by_its_word_again(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    split = ct_series(tmp_path / "split", "split", slices=range(6))
    bench.receive_all(split[:3], association="a1")
    bench.receive_all(split[3:], association="a2")
    bench.pass_time(100)
    whole = ct_series(tmp_path / "whole", "whole")
    bench.receive_all(whole, association="a3")

    bench.pass_time(4)

    assert bench.series(series_uid(whole)).state == "RECEIVING"
    bench.pass_time(100)
    assert bench.series(series_uid(whole)).completion == "quiet"


def test_an_association_that_broke_is_not_held_against_its_sender(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    paths = ct_series(tmp_path / "one", "x", slices=range(6))
    for path in paths[:3]:
        bench.receive(path, association="a1")
    bench.release("a1", released=False)  # the node was restarted, and the scanner sends the rest half a minute later
    bench.now += 8
    bench.receive_all(paths[3:], association="a2")
    bench.pass_time(100)

    with bench.database.read() as connection:
        assert index.sender(connection, "CT_ROOM_1") == (False, [])
    bench.receive_all(after := ct_series(tmp_path / "two", "after"), association="a3")
    bench.pass_time(4)
    assert bench.series(series_uid(after)).completion == "contiguous"


def test_a_concatenation_is_not_complete_for_being_silent(bench: Bench, pacs: ScriptedPacs, tmp_path: Path) -> None:
    parts = [
        ct_series(
            tmp_path,
            "x",
            slices=[i],
            ConcatenationUID="2.25.5",
            InConcatenationNumber=i + 1,
            InConcatenationTotalNumber=4,
        )[0]
        for i in range(4)
    ]
    bench.receive_all(parts[:1], association="a1")
    bench.receive_all(parts[1:2], association="a2")
    bench.pass_time(300, step_s=5)
    assert bench.series(series_uid(parts)).state == "RECEIVING"

    bench.receive_all(parts[2:], association="a3")
    bench.pass_time(15)

    row = bench.series(series_uid(parts))
    assert (row.state, row.completion, row.revision) == ("DELIVERED", "announced", 1)


@pytest.mark.parametrize(("keyword", "value"), [("Modality", ["CT", "MR"]), ("ImagePositionPatient", ["a", "b", "c"])])
def test_a_header_that_makes_no_sense_holds_nobody_else_up(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, keyword: str, value: list[str]
) -> None:
    odd = ct_series(tmp_path / "odd", "odd")
    for path in odd:
        ds = pydicom.dcmread(path)
        ds.add_new(keyword, "LO", value)
        ds.save_as(path)
    bench.receive_all(odd, association="a1")

    bench.receive_all(sound := ct_series(tmp_path / "sound", "sound"), association="a2", aet="CT_2")
    bench.pass_time(200)

    assert bench.series(series_uid(sound)).state == "DELIVERED"
    assert bench.series(series_uid(odd)).state not in ("RECEIVING", "READY")


def test_when_the_chosen_reconstruction_cannot_be_scored_another_one_is(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path
) -> None:
    event = {"IrradiationEventUID": "2.25.77"}
    first, second = (ct_series(tmp_path / name, name, study="one", **event) for name in ("first", "second"))
    bench.receive_all(first, association="a1")
    bench.pass_time(10)
    bench.receive_all(second, association="a2", aet="CT_2")
    bench.pass_time(10)
    row = bench.series(series_uid(second))
    assert (row.reason.code, row.scored_instead) == ("other_reconstruction", series_uid(first))

    bench.receive_all([reject_note(tmp_path / "note.dcm", first)], association="a3", aet="QC")
    bench.pass_time(300)

    assert bench.series(series_uid(first)).state == "NOT_SCORED"
    assert bench.series(series_uid(second)).state == "DELIVERED"
