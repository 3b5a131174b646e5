"""Nobody without the right gets a report under another patient, brings rejected images back, or stops others."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
import sqlalchemy as sa
from pipeline.test_corrections import settle, whose
from pipeline.test_identity import RIGHT, WRONG, stored
from support.bench import Bench
from support.corrections import SCANNER, Make
from support.scripted import ScriptedPacs
from support.series import ct_series, reject_note, series_uid
from support.siblings import before_release

from mediqa_node.domain.policy import AllowRule, ReceiverPolicy, Retention
from mediqa_node.domain.series import CopyDecision
from mediqa_node.pipeline import sweeps
from mediqa_node.pipeline.sweeps import retain
from mediqa_node.storage import activity, audit, copies, outbox, overview, rejections, retention, retractions
from mediqa_node.storage.tables import instances

STRANGER = {"aet": "X", "address": "10.0.0.66"}
AUTHORITY = {"aet": "QC", "address": "10.0.0.7"}
EVIL = {"patient_id": "EVIL", "patient_name": "Evil^Eve"}


@pytest.fixture
def bench(make: Make) -> Iterator[Bench]:
    """A bench whose scanner CT_ROOM_1 is a source, and QC an authority."""
    return make()


def recoded(paths: list[Path]) -> list[Path]:
    """Write files again in Implicit VR: other bytes, the same images."""
    for path in paths:
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
        ds.save_as(path, implicit_vr=True, little_endian=True)
    return paths


@pytest.mark.parametrize("title", [*before_release("113001"), "113038"])
def test_rejected_images_come_back_under_no_other_patient(
    bench: Bench,
    pacs: ScriptedPacs,
    tmp_path: Path,
    title: str,
) -> None:
    bench.receive_all(paths := ct_series(tmp_path / "one", "x"), **SCANNER)
    bench.receive_all([reject_note(tmp_path / "n1.dcm", paths, title=title)], association="a2", **SCANNER)
    bench.pass_time(30)
    bench.receive_all([reject_note(tmp_path / "n2.dcm", paths, title="113038")], association="a3", **STRANGER)
    bench.receive_all(ct_series(tmp_path / "evil", "x", **EVIL), association="a4", **STRANGER)
    bench.pass_time(200)

    assert stored(pacs) == []
    assert bench.series(series_uid(paths)).state == "NOT_SCORED"
    assert bench.copies(pydicom.dcmread(paths[0]).SOPInstanceUID) == ["rejected", "rejected"]


def test_the_scanner_brings_back_what_it_has_withdrawn_as_another_patients(
    bench: Bench,
    pacs: ScriptedPacs,
    tmp_path: Path,
) -> None:
    bench.receive_all(paths := ct_series(tmp_path / "one", "x", **WRONG), **SCANNER)
    bench.pass_time(30)
    bench.receive_all([reject_note(tmp_path / "n1.dcm", paths, title="113038")], association="a2", **SCANNER)
    bench.pass_time(30)
    bench.receive_all(ct_series(tmp_path / "right", "x", **RIGHT), association="a4", **SCANNER)
    bench.pass_time(200)

    assert sorted(whose(stored(pacs))) == [("RIGHT", False), ("WRONG", False), ("WRONG", True)]


@pytest.mark.parametrize("change", [{"pixels": "other"}, EVIL], ids=["other pixels", "another patient"])
@pytest.mark.parametrize("first", [*before_release(False), True], ids=["after the note", "before the note"])
def test_a_decision_does_not_bring_rejected_images_back(
    bench: Bench,
    pacs: ScriptedPacs,
    tmp_path: Path,
    change: dict[str, Any],
    first: bool,
) -> None:
    bench.receive_all(paths := ct_series(tmp_path / "one", "x"), **SCANNER)
    note = reject_note(tmp_path / "n1.dcm", paths)
    others = ct_series(tmp_path / "other", "x", **change)
    steps = [([note], SCANNER), (others, STRANGER)]
    for i, (what, sender) in enumerate(reversed(steps) if first else steps):
        bench.receive_all(what, association=f"b{i}", **sender)
        bench.pass_time(30)

    with bench.database.read() as connection:
        for action in (CopyDecision.KEEP_FIRST, CopyDecision.KEEP_LAST):
            assert copies.proposal(connection, series_uid(paths), action) is None
    assert stored(pacs) == []


@pytest.mark.parametrize("sender", [SCANNER, *before_release(AUTHORITY)])
def test_what_was_set_aside_is_a_question_in_any_form(
    bench: Bench,
    pacs: ScriptedPacs,
    tmp_path: Path,
    sender: dict[str, str],
) -> None:
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.receive_all(right := ct_series(tmp_path / "r", "x", **RIGHT), association="a2", **SCANNER)
    bench.pass_time(1)

    bench.receive_all(recoded(ct_series(tmp_path / "again", "x", **WRONG)), association="a3", **sender)
    bench.pass_time(200)

    assert stored(pacs) == []
    assert bench.series(series_uid(right)).state == "WITHHELD"


def test_an_image_that_was_left_out_is_a_question_when_it_comes_again(
    bench: Bench,
    pacs: ScriptedPacs,
    tmp_path: Path,
) -> None:
    wrong, right = ct_series(tmp_path / "w", "x", **WRONG), ct_series(tmp_path / "r", "x", **RIGHT)
    bench.receive_all([*wrong[:1], *right[1:]], **SCANNER)
    bench.pass_time(20)
    settle(bench, series_uid(right), CopyDecision.KEEP_LAST)
    bench.pass_time(100)
    assert whose(stored(pacs)) == [("RIGHT", False)]

    bench.receive_all(right[:1], association="a2", **SCANNER)
    bench.pass_time(200)
    assert whose(stored(pacs)) == [("RIGHT", False)] * 2, "the same patient: a late image"

    bench.receive_all(recoded(wrong[:1]), association="a3", **STRANGER)
    bench.pass_time(100)
    assert len(stored(pacs)) == 2
    assert bench.series(series_uid(right)).reason.code == "identity"


@pytest.mark.parametrize("what", ["copies", *before_release("note")])
def test_the_same_bytes_from_a_stranger_do_not_silence_the_authority(
    bench: Bench,
    pacs: ScriptedPacs,
    tmp_path: Path,
    what: str,
) -> None:
    bench.receive_all(wrong := ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.pass_time(30)
    right = ct_series(tmp_path / "r", "x", **RIGHT)
    sent = right if what == "copies" else [reject_note(tmp_path / "n.dcm", wrong, title="113038")]
    bench.receive_all(sent, association="a2", **STRANGER)
    bench.pass_time(30)
    assert whose(stored(pacs)) == [("WRONG", False)]

    bench.receive_all(sent, association="a3", **AUTHORITY)
    bench.pass_time(200)

    assert ("WRONG", True) in whose(stored(pacs))
    assert (("RIGHT", False) in whose(stored(pacs))) is (what == "copies")


def test_a_disputed_series_keeps_its_acquisition(bench: Bench, pacs: ScriptedPacs, tmp_path: Path) -> None:
    one = ct_series(tmp_path / "one", "one", study="s", event="e", **WRONG)
    two = ct_series(tmp_path / "two", "two", study="s", event="e", **WRONG)
    bench.receive_all(one, **SCANNER)
    bench.receive_all(two, association="a2", **SCANNER)
    bench.receive_all(ct_series(tmp_path / "r", "one", study="s", event="e", **RIGHT), association="a3", **STRANGER)
    bench.pass_time(200)

    assert stored(pacs) == []
    assert bench.series(series_uid(two)).state == "NOT_SCORED"


# ── what stands at a destination ─────────────────────────────────────────────


def test_a_title_that_counts_more_takes_back_what_an_earlier_one_left(
    bench: Bench,
    pacs: ScriptedPacs,
    tmp_path: Path,
) -> None:
    bench.receive_all(paths := ct_series(tmp_path / "one", "x", **WRONG), **SCANNER)
    bench.pass_time(20)
    for i, title in enumerate(("113039", "113038")):
        note = reject_note(tmp_path / f"{title}.dcm", paths, title=title)
        bench.receive_all([note], association=f"b{i}", **SCANNER)
        bench.pass_time(60)
        bench.work()

    assert whose(stored(pacs)) == [("WRONG", False), ("WRONG", True)]


def test_what_a_rejection_leaves_is_taken_back_if_it_cannot_be_scored(
    make: Make,
    pacs: ScriptedPacs,
    tmp_path: Path,
) -> None:
    from mediqa_node.domain.policy import Retention

    bench = make(retention=Retention(days=1))
    bench.receive_all(paths := ct_series(tmp_path / "one", "x", **WRONG), **SCANNER)
    bench.pass_time(20)
    bench.now += 2 * 86400
    assert retain(bench.node) == 5
    bench.receive_all([reject_note(tmp_path / "n.dcm", paths[:3], title="113038")], association="a2", **SCANNER)
    bench.pass_time(100)
    bench.work()

    assert bench.series(series_uid(paths)).state == "NOT_SCORED"
    assert whose(stored(pacs)) == [("WRONG", False), ("WRONG", True)]


def test_a_note_about_some_slices_whose_retention_has_ended_revises_nothing(
    bench: Bench,
    pacs: ScriptedPacs,
    tmp_path: Path,
) -> None:
    bench.receive_all(paths := ct_series(tmp_path / "one", "x", slices=range(6)), **SCANNER)
    bench.pass_time(20)
    bench.receive_all([reject_note(tmp_path / "n.dcm", paths[:2], title="113039")], association="a2", **SCANNER)
    bench.pass_time(200)

    assert len(stored(pacs)) == 1
    assert bench.series(series_uid(paths)).state == "DELIVERED"


def test_a_note_rejects_every_revision_that_stands(make: Make, pacs: ScriptedPacs, tmp_path: Path) -> None:
    bench = make(peer={"retraction": "note"})
    paths = ct_series(tmp_path / "w", "x", slices=range(6), **WRONG)
    bench.receive_all(paths[:5], **SCANNER)
    bench.pass_time(20)
    bench.receive_all(paths[5:], association="a2", **SCANNER)
    bench.pass_time(200)
    bench.receive_all(ct_series(tmp_path / "r", "x", slices=range(6), **RIGHT), association="a3", **AUTHORITY)
    bench.pass_time(200)

    first, second = (report for report in stored(pacs) if (report.PatientID, report.Modality) == ("WRONG", "SR"))
    [note] = [report for report in stored(pacs) if report.Modality == "KO"]
    named = {
        item.ReferencedSOPInstanceUID
        for series in note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert named == {first.SOPInstanceUID, second.SOPInstanceUID}


def test_a_report_that_was_refused_stands_nowhere(bench: Bench, pacs: ScriptedPacs, tmp_path: Path) -> None:
    pacs.statuses = [0xC000]
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.pass_time(20)
    bench.receive_all(right := ct_series(tmp_path / "r", "x", **RIGHT), association="a2", **SCANNER)
    bench.pass_time(200)

    assert [report.PatientID for report in stored(pacs)] == ["WRONG", "RIGHT"], "the first was refused"
    assert bench.series(series_uid(right)).state == "DELIVERED"
    with bench.database.read() as connection:
        assert retractions.of_series(connection, series_uid(right)) == []


def test_images_of_before_the_upgrade_are_compared_and_taken_back_too(
    bench: Bench,
    pacs: ScriptedPacs,
    tmp_path: Path,
) -> None:
    bench.receive_all(ct_series(tmp_path / "w", "x", **WRONG), **SCANNER)
    bench.pass_time(20)
    with bench.database.write() as connection:
        connection.execute(sa.update(instances).values(identity=None))
    bench.receive_all(right := ct_series(tmp_path / "r", "x", **RIGHT), association="a2", **SCANNER)
    bench.pass_time(30)

    assert settle(bench, series_uid(right), CopyDecision.KEEP_LAST) == 1
    bench.pass_time(200)
    assert sorted(whose(stored(pacs))) == [("RIGHT", False), ("WRONG", False), ("WRONG", True)]


# ── who stops whom ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("uid", ["1.2." + "9" * 80, *before_release("not a uid", "1..2")])
def test_a_note_with_malformed_references_stops_nobody(
    bench: Bench,
    pacs: ScriptedPacs,
    tmp_path: Path,
    uid: str,
) -> None:
    paths = ct_series(tmp_path / "one", "x")
    note = reject_note(tmp_path / "n.dcm", paths)
    ds = pydicom.dcmread(note)
    for item in ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[:2]:
        item.ReferencedSOPInstanceUID = uid
    ds.save_as(note)
    bench.receive_all([note], association="a0", **STRANGER)
    bench.receive_all(paths, **SCANNER)
    bench.pass_time(100)

    assert len(stored(pacs)) == 1
    with bench.database.read() as connection:
        assert rejections.unread(connection) == []


def test_a_note_that_names_more_than_a_query_holds_is_read(bench: Bench, tmp_path: Path) -> None:
    with bench.database.read() as connection:
        assert rejections.series_named(connection, [f"1.2.{n}" for n in range(300_000)]) == set()


def test_a_source_is_bound_to_its_addresses() -> None:
    everybody = AllowRule(address="0.0.0.0/0")
    rules = ReceiverPolicy(allowed=(everybody, AllowRule(ae_title="CT1", address="10.0.0.5", source=True)))

    assert rules.rule_for("CT1", "10.0.0.9") is None
    assert rules.rule_for("CT1", "::ffff:10.0.0.5") == rules.allowed[1], "whatever stands above it"
    assert rules.rule_for("CT2", "10.0.0.9") == everybody


def test_hourly_jobs_go_on_after_a_step_back(bench: Bench) -> None:
    scheduler = sweeps.schedule(bench.node, bench.jobs)  # type: ignore[arg-type]
    scheduler.start(paused=True)
    for job in scheduler.get_jobs():
        job.trigger.start_date += timedelta(days=365)  # as a trigger made before the clock was set back
    sweeps.rearm(scheduler)

    left = [job.next_run_time - job.next_run_time.now(job.next_run_time.tzinfo) for job in scheduler.get_jobs()]
    scheduler.shutdown()
    assert all(span < timedelta(hours=1, minutes=1) for span in left)


@pytest.mark.parametrize(
    "ask",
    [
        rejections.unread,
        rejections.studies_with_unread,
        copies.disputed_series,
        copies.candidates,
        copies.candidate_series,
        lambda connection: activity.is_busy(connection, soon=0.0),
        lambda connection: outbox.may_have_left(connection, "1"),
        lambda connection: copies.copies_of(connection, "1", *copies.OPEN),
        lambda connection: retention.purged_paths(connection, since=1.0),
        lambda connection: audit.paths_since(connection, "20261123-10"),
        overview.facts,
        audit.last_received_at,
    ],
    ids=[
        "unread",
        "studies",
        "disputed",
        "candidates",
        "candidate series",
        "busy",
        "left",
        "copies",
        "purged",
        "paths",
        "facts",
        "last",
    ],
)
def test_no_query_of_a_sweep_reads_the_whole_archive(bench: Bench, ask: Any) -> None:
    asked: list[tuple[str, Any]] = []
    sa.event.listen(bench.database.engine, "before_cursor_execute", lambda *a: asked.append((a[2], a[3])))
    with bench.database.read() as connection:
        ask(connection)
        statements = [one for one in asked if one[0].startswith("SELECT")]
        plans = [
            str(row)
            for statement, values in statements
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        ]

    assert plans
    whole = [plan for plan in plans if "SCAN instances" in plan and "INDEX" not in plan]
    assert len(whole) == sum("ORDER BY instances.id DESC" in one for one, _ in statements), "the last one is the first"


@pytest.mark.parametrize(
    "change",
    [{"SeriesInstanceUID": "2.25.4711"}, *before_release({"pixels": "other"}, {})],
    ids=["another series", "other pixels", "not scored"],
)
def test_what_is_in_question_outlives_retention(
    make: Make, pacs: ScriptedPacs, tmp_path: Path, change: dict[str, Any]
) -> None:
    bench = make(retention=Retention(days=1))
    if not change:  # another reconstruction of the acquisition is scored
        bench.receive_all(
            ct_series(tmp_path / "0", "first", study="s", event="e", **WRONG), association="a0", **SCANNER
        )
        bench.pass_time(20)
    bench.receive_all(paths := ct_series(tmp_path / "w", "x", study="s", event="e", **WRONG), **SCANNER)
    bench.pass_time(40)
    copied = ct_series(tmp_path / "r", "x", slices=[0], study="s", event="e", **{**RIGHT, **change})
    bench.receive_all(copied, association="a2", **STRANGER)
    bench.pass_time(60)

    bench.now += 2 * 86400
    assert retain(bench.node) == (0 if change else 5)
    with bench.database.read() as connection:
        for action in (CopyDecision.KEEP_FIRST, CopyDecision.KEEP_LAST):
            decision = copies.proposal(connection, series_uid(paths), action)
            assert all(row.purged_at is None for row in (*decision.kept, *decision.set_aside))

    settle(bench, series_uid(paths), CopyDecision.KEEP_FIRST)
    bench.now += 2 * 86400
    assert retain(bench.node) > 0, "it is no question any more"


@pytest.mark.parametrize(
    ("action", "n_back"), [(CopyDecision.KEEP_LAST, 1), *before_release((CopyDecision.KEEP_FIRST, 0))]
)
def test_images_that_were_moved_to_another_series_leave_one_report(
    bench: Bench, pacs: ScriptedPacs, tmp_path: Path, action: CopyDecision, n_back: int
) -> None:
    bench.receive_all(paths := ct_series(tmp_path / "one", "x"), **SCANNER)
    bench.pass_time(20)
    moved = ct_series(tmp_path / "two", "x", SeriesInstanceUID="2.25.4711")
    bench.receive_all(moved, association="a2", **AUTHORITY)
    bench.pass_time(40)

    assert settle(bench, series_uid(paths), action) == n_back
    bench.pass_time(100)

    assert [is_void for _, is_void in whose(stored(pacs))].count(True) == n_back
    assert len(stored(pacs)) == 1 + 2 * n_back
