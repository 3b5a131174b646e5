"""What goes with a report: off by default, after the report, never in its way, the same bytes on every try."""

import contextlib
import errno
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
import sqlalchemy as sa
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from support.bench import Bench
from support.orthanc import Orthanc
from support.scripted import ABORT, SR_CLASSES, ScriptedPacs, scripted
from support.series import ct_series, series_uid
from support.siblings import before_release
from support.waiting import need, until

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import CompanionRules
from mediqa_node.domain.series import DeliveryState
from mediqa_node.pipeline import companions, deliver, sweeps
from mediqa_node.pipeline.checks.verify import verify
from mediqa_node.storage import assessments, overview
from mediqa_node.storage import companions as stored
from mediqa_node.storage.companions import CompanionRow
from mediqa_node.storage.health import destinations, waiting_destinations
from mediqa_node.storage.outbox import DeliveryRow

CAPTURE, MAP = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.30"
EVERYTHING = [*SR_CLASSES.values(), CAPTURE, MAP]
BOTH = CompanionRules(secondary_capture=True, parametric_map=True)
DATA = Path(__file__).parents[1] / "data"
MakeBench = Callable[..., Bench]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


@pytest.fixture
def bench_to(tmp_path: Path) -> Iterator[MakeBench]:
    """Make a bench whose one destination is the given port."""
    made: list[Bench] = []

    def make(port: int, *, rules: CompanionRules = BOTH, ae_title: str = "SCRIPTED") -> Bench:
        peer = Peer(name="PACS", ae_title=ae_title, host="127.0.0.1", port=port)
        made.append(Bench(tmp_path / f"bench{len(made)}", peers=[peer], companions=rules))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def assessed(bench: Bench, paths: list[Path], *, association: str = "a1") -> str:
    bench.receive_all(paths, association=association)
    bench.now += 30
    bench.complete_series()
    bench.work()
    series = series_uid(paths)
    # a series of uneven spacing waits for late slices
    bench.pass_time(90, step_s=10, until=lambda: all(row.attempts for row in bench.deliveries(series)))
    return series


def received(pacs: ScriptedPacs) -> list[Dataset]:
    """What arrived, in order."""
    return [pydicom.dcmread(DicomBytesIO(content), force=True) for content in map(_with_syntax, pacs.received)]


def _with_syntax(content: bytes) -> bytes:
    """Put the head of a Part 10 file before an encoded dataset."""
    head = BytesIO()
    file_meta = pydicom.dataset.FileMetaDataset()
    file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    file_meta.MediaStorageSOPClassUID = file_meta.MediaStorageSOPInstanceUID = "1.2"
    head.write(b"\0" * 128 + b"DICM")
    pydicom.filewriter.write_file_meta_info(head, file_meta)
    return head.getvalue() + content


def only_delivery(bench: Bench, series: str) -> DeliveryRow:
    [delivery] = bench.deliveries(series)
    return delivery


def built(bench: Bench, series: str, sop_class: str, revision: int = 1) -> list[CompanionRow]:
    with bench.database.read() as connection:
        return stored.find(connection, series, revision, sop_class)


# ── when, and what ───────────────────────────────────────────────────────────


def test_by_default_nothing_goes_with_a_report_and_nothing_is_proposed(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port, rules=CompanionRules())
        proposed: list[str] = []
        pacs.on_find = lambda: proposed.extend(
            str(context.abstract_syntax)
            for association in pacs.entity.active_associations
            for context in association.requestor.requested_contexts
        )
        series = assessed(bench, ct_series(tmp_path / "ct", "off"))

    assert only_delivery(bench, series).state == "sent"
    assert len(pacs.received) == 1
    assert proposed
    assert not {CAPTURE, MAP} & set(proposed)
    assert built(bench, series, CAPTURE) == built(bench, series, MAP) == []


def test_pictures_and_map_follow_the_report(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, ct_series(tmp_path / "ct", "both"))

    delivery = only_delivery(bench, series)
    assert (delivery.state, delivery.reason_code, delivery.companions) == ("sent", "study_not_there", "sent")
    found = received(pacs)
    assert [dataset.SOPClassUID for dataset in found] == [SR_CLASSES["comprehensive3d"], *[CAPTURE] * 5, MAP]
    assert len({int(dataset.SeriesNumber) for dataset in found} | {3}) == 4, "one for each kind, none of the study's"
    assert [int(dataset.InstanceNumber) for dataset in found[1:6]] == [1, 2, 3, 4, 5]
    assert {str(dataset.PatientName) for dataset in found} == {"Wasser^Anna"}
    assert bench.series(series).state == "DELIVERED"


def test_the_map_that_arrives_is_the_map_that_was_scored(bench_to: MakeBench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "values")
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port, rules=CompanionRules(parametric_map=True))
        assessed(bench, paths)

    found = received(pacs)[-1]
    frames = np.frombuffer(found.FloatPixelData, "<f4").reshape(-1, 64, 64)
    for groups, frame in zip(found.PerFrameFunctionalGroupsSequence, frames, strict=True):
        uid = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        [image] = [one.pixel_array for one in map(pydicom.dcmread, paths) if uid == one.SOPInstanceUID]
        shown = np.clip((image + 160.0) / 400.0, 0, 1)  # the window of the stand-in, which scores brightness
        patches = np.asarray(shown.reshape(8, 8, 8, 8).mean(axis=(1, 3))).repeat(8, axis=0).repeat(8, axis=1)
        np.testing.assert_allclose(frame, patches, atol=0.03)


@pytest.mark.parametrize(
    ("folder", "kinds"),
    [
        ("fundus", [CAPTURE]),
        *before_release(
            ("mr_brain_t1_xa30_enhanced", [CAPTURE] * 7 + [MAP]), ("ct_sts003_lowdose", [CAPTURE] * 7 + [MAP])
        ),
    ],
)
def test_real_series_get_valid_companions(bench_to: MakeBench, tmp_path: Path, folder: str, kinds: list[str]) -> None:
    tool = shutil.which("dciodvfy", path="/usr/bin")
    if tool is None:
        pytest.skip("apt-get install dicom3tools")
    paths = sorted((DATA / folder).glob("*.dcm")) or [_photograph(tmp_path)]
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, paths)

    assert only_delivery(bench, series).state == "sent"
    assert [dataset.SOPClassUID for dataset in received(pacs)][1:] == kinds
    for row in built(bench, series, CAPTURE) + built(bench, series, MAP):
        path = tmp_path / "companion.dcm"
        path.write_bytes(row.part10 or b"")
        said = subprocess.run([tool, "-new", path], capture_output=True, text=True, check=False)
        assert [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")] == []


def _photograph(folder: Path) -> Path:
    """A fundus photograph as an instance with a patient."""
    from PIL import Image

    from mediqa_node.dicom.photograph import wrap_photograph

    dataset = wrap_photograph(np.asarray(Image.open(DATA / "fundus_chasedb1" / "Image_01L.jpg").convert("RGB")))
    dataset.PatientID = "SYN001"
    dataset.save_as(folder / "fundus.dcm", enforce_file_format=True)
    return folder / "fundus.dcm"


def test_no_word_of_the_patient_is_in_a_picture(bench_to: MakeBench, tmp_path: Path) -> None:
    """The pixels are those of the same images under another name: nothing of the header is drawn into them."""
    drawn = []
    for name, patient in (("one", {"patient_name": "Canary^Karla", "patient_id": "CANARY7"}), ("other", {})):
        with scripted(classes=EVERYTHING) as pacs:
            bench = bench_to(pacs.port, rules=CompanionRules(secondary_capture=True))
            assessed(bench, ct_series(tmp_path / name, "canary", **patient))  # type: ignore[arg-type]
        found = received(pacs)[1:]
        drawn.append([dataset.PixelData for dataset in found])
        assert {str(dataset.PatientName) for dataset in found} == {patient.get("patient_name", "Wasser^Anna")}
        assert not any(b"anary" in pixels.lower() for pixels in drawn[-1])

    assert drawn[0] == drawn[1]


# ── what the destination does ────────────────────────────────────────────────


@pytest.mark.parametrize(("missing", "kept"), [(CAPTURE, [MAP]), *before_release((MAP, [CAPTURE] * 5))])
def test_a_peer_without_the_class_gets_the_report_and_that_is_noted(
    bench_to: MakeBench, tmp_path: Path, missing: str, kept: list[str]
) -> None:
    with scripted(classes=[uid for uid in EVERYTHING if uid != missing]) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, ct_series(tmp_path / "ct", "missing"))

    delivery = only_delivery(bench, series)
    assert delivery.state == "sent"
    assert "does not accept the class" in str(delivery.companions_note)
    assert [dataset.SOPClassUID for dataset in received(pacs)][1:] == kept
    assert bench.series(series).state == "DELIVERED"


@pytest.mark.parametrize("failure", [ABORT, *before_release(0xA700)])
def test_a_companion_that_fails_for_now_is_tried_again_with_the_same_bytes_and_without_the_report(
    bench_to: MakeBench, tmp_path: Path, failure: int
) -> None:
    with scripted(classes=EVERYTHING, statuses=[0, 0, 0, failure]) as pacs:
        bench = bench_to(pacs.port, rules=CompanionRules(secondary_capture=True))
        series = assessed(bench, ct_series(tmp_path / "ct", "again"))
        assert only_delivery(bench, series).state == "sent"
        assert "(3 of 5 not sent)" in str(only_delivery(bench, series).companions_note)
        assert len(pacs.received) == 4

        bench.pass_time(400, step_s=10)

    assert (only_delivery(bench, series).state, only_delivery(bench, series).attempts) == ("sent", 1)
    assert only_delivery(bench, series).companions_note is None
    assert pacs.received[4] == pacs.received[3], "what failed comes first"
    assert len(pacs.received) == 4 + 3, "what was taken is not sent again"


@pytest.mark.acceptance
@pytest.mark.parametrize("failure", [0xA700, *before_release(ABORT)])
def test_a_peer_that_never_takes_pictures_gets_the_report_once_and_three_tries(
    bench_to: MakeBench, tmp_path: Path, failure: int
) -> None:
    with scripted(classes=EVERYTHING, statuses=[0, *[failure] * 100]) as pacs:
        bench = bench_to(pacs.port, rules=CompanionRules(secondary_capture=True))
        series = assessed(bench, ct_series(tmp_path / "ct", "never"))
        assert bench.series(series).state == "DELIVERED"
        done_at = only_delivery(bench, series).done_at

        bench.pass_time(8 * 86400, step_s=1200)

    delivery = only_delivery(bench, series)
    assert (delivery.state, delivery.attempts, delivery.done_at) == ("sent", 1, done_at)
    assert "without secondary capture: PACS" in str(delivery.companions_note)
    assert "(5 of 5 not sent)" in str(delivery.companions_note)
    assert bench.series(series).state == "DELIVERED"
    sent = [dataset.SOPClassUID for dataset in received(pacs)]
    assert sent == [SR_CLASSES["comprehensive3d"], *[CAPTURE] * 3]


def test_a_peer_that_is_gone_after_the_report_is_asked_once_a_round(
    bench_to: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    open_link = companions.open_link
    monkeypatch.setattr(companions, "open_link", lambda *a, **k: asked.append(a) or open_link(*a, **k))
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port)
        paths = [ct_series(tmp_path / name, name) for name in ("one", "two")]
        monkeypatch.setattr("support.bench.send_due_companions", lambda node: 0)
        uids = [assessed(bench, each, association=each[0].parent.name) for each in paths]
        assert [only_delivery(bench, uid).state for uid in uids] == ["sent", "sent"]
    companions.send_due_companions(bench.node)

    assert len(asked) == 1
    for uid in uids:
        assert only_delivery(bench, uid).state == "sent"
        assert "without companions: PACS" in str(only_delivery(bench, uid).companions_note)
    with bench.database.read() as connection:
        [gone] = waiting_destinations(connection)
    assert (gone.n_waiting, gone.n_companions, gone.failing_since) == (0, 2, bench.now)
    assert "not reachable" in gone.why

    with scripted(classes=EVERYTHING) as pacs:
        bench.node = replace(bench.node, peers=tuple(replace(peer, port=pacs.port) for peer in bench.node.peers))
        bench.now += 400
        companions.send_due_companions(bench.node)
    with bench.database.read() as connection:
        assert waiting_destinations(connection) == []
        assert connection.execute(sa.select(destinations.c.failing_since)).scalar_one() is None


@pytest.mark.parametrize("status", [0xC000, *before_release(0xA900, 0x0122)])
def test_a_companion_that_is_refused_for_good_does_not_park_a_report_that_has_arrived(
    bench_to: MakeBench, tmp_path: Path, status: int
) -> None:
    with scripted(classes=EVERYTHING, statuses=[0, status]) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, ct_series(tmp_path / "ct", "refused"))

    delivery = only_delivery(bench, series)
    assert (delivery.state, delivery.status) == ("sent", 0)
    assert f"without secondary capture: PACS refused the object (status {status:#06x})" in str(delivery.companions_note)
    assert "(5 of 5 not sent)" in str(delivery.companions_note)
    assert [dataset.SOPClassUID for dataset in received(pacs)][2:] == [MAP], "the other kind still goes"
    bench.pass_time(3600, step_s=100)
    assert len(pacs.received) == 3, "refused for good: not tried again"


def test_a_report_that_is_refused_has_no_companions(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted(classes=EVERYTHING, statuses=[0xC000]) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, ct_series(tmp_path / "ct", "report refused"))

    assert only_delivery(bench, series).state == "parked"
    assert len(pacs.received) == 1


@pytest.mark.acceptance
def test_two_destinations_get_the_same_bytes(tmp_path: Path) -> None:
    with scripted(classes=EVERYTHING) as one, scripted(classes=EVERYTHING) as other:
        peers = [
            Peer(name=name, ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)
            for name, pacs in (("ONE", one), ("OTHER", other))
        ]
        bench = Bench(tmp_path / "bench", peers=peers, companions=BOTH)
        assessed(bench, ct_series(tmp_path / "ct", "two"))
        bench.close()

    assert len(one.received) == 7
    assert one.received == other.received


# ── what happens to us ───────────────────────────────────────────────────────


def test_what_cannot_be_built_is_noted_and_the_report_is_sent(
    bench_to: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise AttributeError("a header nobody has seen")

    monkeypatch.setattr(companions, "explained_slices", broken)
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, ct_series(tmp_path / "ct", "broken"))

    delivery = only_delivery(bench, series)
    assert delivery.state == "sent"
    assert str(delivery.companions_note).count("could not be built or sent (AttributeError)") == 2
    assert len(pacs.received) == 1


@pytest.mark.parametrize(
    ("error", "tries"),
    [(OSError(errno.EIO, "input/output error"), 3), (RuntimeError(), 1), *before_release((MemoryError(), 3))],
)
def test_whatever_fails_while_drawing_the_report_was_delivered_once(
    bench_to: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int
) -> None:
    drawn = []

    def fails(*_: object) -> None:
        drawn.append(1)
        raise error

    monkeypatch.setattr(companions, "explained_slices", fails)
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port, rules=CompanionRules(secondary_capture=True))
        series = assessed(bench, ct_series(tmp_path / "ct", "fails"))
        bench.pass_time(3600, step_s=200)
        bench.pass_time(2 * 86400, step_s=7200)

    delivery = only_delivery(bench, series)
    assert (delivery.state, delivery.attempts) == ("sent", 1)
    assert type(error).__name__ in str(delivery.companions_note)
    assert bench.series(series).state == "DELIVERED"
    assert len(pacs.received) == 1
    assert len(drawn) == tries


def test_a_courier_that_dies_while_drawing_draws_three_times_and_sends_the_report_once(
    bench_to: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    drawn = []

    def dies(*_: object) -> None:
        drawn.append(bench.now)
        raise Killed

    monkeypatch.setattr(companions, "explained_slices", dies)
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port, rules=CompanionRules(secondary_capture=True))
        with pytest.raises(Killed):
            assessed(bench, paths := ct_series(tmp_path / "ct", "dies"))
        series = series_uid(paths)
        for _ in range(100):
            bench.now += 60
            with contextlib.suppress(Killed):
                companions.send_due_companions(bench.node)

    assert len(drawn) == 3
    assert drawn[-1] - drawn[0] < 3600
    delivery = only_delivery(bench, series)
    assert (delivery.companions, delivery.companions_note) == ("pending", "not finished")
    assert bench.series(series).state == "DELIVERED"
    assert len(pacs.received) == 1


def test_pictures_that_were_drawn_stay_here_once_the_series_has_changed(
    bench_to: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late slice comes between the second picture and the third."""
    paths = ct_series(tmp_path / "ct", "between", slices=range(6))
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port)
        send = companions._send_one

        def then_late(*arguments):  # type: ignore[no-untyped-def]
            send(*arguments)
            if len(pacs.received) == 3:
                bench.receive(paths[5], association="a2")

        monkeypatch.setattr(companions, "_send_one", then_late)
        series = assessed(bench, paths[:5])

        message = str(bench.deliveries(series)[0].companions_note)
        assert "without secondary capture: the series has changed since (3 of 5 not sent)" in message
        assert "without parametric map: the series has changed since" in message
        bench.pass_time(60)
        assert [dataset.SOPClassUID for dataset in received(pacs)] == [SR_CLASSES["comprehensive3d"], CAPTURE, CAPTURE]
        bench.release("a2")
        bench.pass_time(3600, step_s=10)

    found = received(pacs)[3:]
    assert [dataset.SOPClassUID for dataset in found] == [SR_CLASSES["comprehensive3d"], *[CAPTURE] * 6, MAP]
    assert [int(dataset.InstanceNumber) for dataset in found[1:7]] == [6, 7, 8, 9, 10, 11]


def test_a_copy_that_is_compared_holds_pictures_until_it_is_known(
    bench_to: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ct_series(tmp_path / "ct", "compared")
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port, rules=CompanionRules(secondary_capture=True))
        waiting = deliver.Outcome(state=DeliveryState.WAITING, message="a further copy is being compared")
        monkeypatch.setattr(companions, "obstacle_in", lambda *_: waiting)
        series = assessed(bench, paths)
        assert "a further copy is being compared" in str(only_delivery(bench, series).companions_note)
        monkeypatch.undo()
        bench.pass_time(400, step_s=10)

    assert [dataset.SOPClassUID for dataset in received(pacs)][1:] == [CAPTURE] * 5
    assert (only_delivery(bench, series).companions, only_delivery(bench, series).companions_note) == ("sent", None)


@pytest.mark.acceptance
def test_a_slow_drawing_keeps_no_association_waiting(
    bench_to: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing, open_then = companions.explained_slices, []
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port)

        def slow(*arguments):  # type: ignore[no-untyped-def]
            until(lambda: not pacs.entity.active_associations, "the report's association is over")
            open_then.append(len(pacs.entity.active_associations))
            return drawing(*arguments)

        monkeypatch.setattr(companions, "explained_slices", slow)
        series = assessed(bench, ct_series(tmp_path / "ct", "slow"))

    assert open_then == [0, 0]
    assert (only_delivery(bench, series).companions, only_delivery(bench, series).companions_note) == ("sent", None)
    assert len(pacs.received) == 7


def test_images_without_a_place_have_pictures_and_no_map(bench_to: MakeBench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "nowhere", slices=range(1), FrameOfReferenceUID=None)
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, paths)

    assert "without parametric map: the headers do not say where" in str(only_delivery(bench, series).companions_note)
    assert [dataset.SOPClassUID for dataset in received(pacs)][1:] == [CAPTURE]


@pytest.mark.acceptance
def test_companions_of_a_series_that_changes_meanwhile_stay_here(
    bench_to: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late slice, or another patient's header, comes while pictures are drawn: they are of what was."""
    paths = ct_series(tmp_path / "ct", "changes", slices=range(6))
    drawing = companions.explained_slices
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port, rules=CompanionRules(secondary_capture=True))

        def late(*arguments):  # type: ignore[no-untyped-def]
            bench.receive(paths[5], association="a2")
            return drawing(*arguments)

        monkeypatch.setattr(companions, "explained_slices", late)
        series = assessed(bench, paths[:5])
        monkeypatch.undo()

        assert len(pacs.received) == 1
        assert "the series has changed since" in str(bench.deliveries(series)[0].companions_note)
        bench.release("a2")
        bench.pass_time(200)

    found = received(pacs)
    assert [dataset.SOPClassUID for dataset in found].count(CAPTURE) == 6, "those of the revision"
    numbers = [int(dataset.InstanceNumber) for dataset in found if dataset.SOPClassUID == CAPTURE]
    assert numbers == [1, 2, 3, 4, 5, 6]


def test_a_revision_counts_on_in_the_same_series(bench_to: MakeBench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "revised", slices=range(6))
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port, rules=CompanionRules(secondary_capture=True))
        assessed(bench, paths[:5])
        bench.receive_all(paths[5:], association="a2")
        bench.pass_time(300)

    captures = [dataset for dataset in received(pacs) if dataset.SOPClassUID == CAPTURE]
    assert [int(dataset.InstanceNumber) for dataset in captures] == list(range(1, 12))
    assert len({dataset.SeriesInstanceUID for dataset in captures}) == 1
    assert len({dataset.SOPInstanceUID for dataset in captures}) == 11


def test_companions_sent_back_to_the_node_end_there(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, ct_series(tmp_path / "ct", "loop"))
        returned = []
        for row in built(bench, series, CAPTURE) + built(bench, series, MAP):
            path = tmp_path / f"{row.sop_instance_uid}.dcm"
            path.write_bytes(row.part10 or b"")
            returned.append(path)
        bench.receive_all(returned, association="back", aet="PACS")
        bench.pass_time(120)

    for uid in {str(pydicom.dcmread(path).SeriesInstanceUID) for path in returned}:
        assert (bench.series(uid).state, bench.series(uid).reason.code) == ("NOT_SCORED", "own_report")
    assert len(pacs.received) == 7


@pytest.mark.acceptance
@pytest.mark.parametrize("sop_class", [CAPTURE, *before_release(MAP)])
def test_another_nodes_companions_are_not_scored_either(tmp_path: Path, bench_to: MakeBench, sop_class: str) -> None:
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, ct_series(tmp_path / "ct", "other's"))
        other = Bench(tmp_path / "other")
        for index, row in enumerate(built(bench, series, sop_class)):
            path = tmp_path / f"{index}.dcm"
            path.write_bytes(row.part10 or b"")
            other.receive(path)
        other.release()
        other.pass_time(120)
        [uid] = {row.companion_series_instance_uid for row in built(bench, series, sop_class)}
        state = other.series(uid).state
        other.close()

    assert state == "NOT_SCORED"


def test_what_was_sent_is_asked_for_and_shown(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, ct_series(tmp_path / "ct", "verified"))
        asked = verify(bench.node, ask_peers=True, advance=lambda done, total: None)
        with bench.database.read() as connection:
            shown = overview.whole_series(connection, bench.series(series))

    assert [problem.split()[4] for problem in asked.problems] == ["report", *["companion"] * 6], "it finds nothing"
    assert {entry["destination"] for entry in shown["companions"]} == {"PACS"}
    assert [entry["sop_class_uid"] for entry in shown["companions"]] == [MAP, *[CAPTURE] * 5]


def test_bytes_go_with_retention_and_the_node_still_knows_its_own(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, ct_series(tmp_path / "ct", "retained"))
        rows = built(bench, series, CAPTURE)
        assert all(row.part10 for row in rows)

        bench.now += 31 * 86400
        sweeps.retain(bench.node)

        assert all(row.part10 is None for row in built(bench, series, CAPTURE))
        with bench.database.read() as connection:
            assert stored.is_own(connection, rows[0].companion_series_instance_uid)
            assert assessments.load_maps(connection, series, 1) is None, "the patch maps go with the images"


@pytest.mark.acceptance
def test_patch_maps_stay_as_long_as_images_do(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted(classes=EVERYTHING) as pacs:
        bench = bench_to(pacs.port)
        series = assessed(bench, ct_series(tmp_path / "ct", "kept"))
        bench.now += 29 * 86400
        sweeps.retain(bench.node)

    with bench.database.read() as connection:
        assert assessments.load_maps(connection, series, 1) is not None


@pytest.mark.acceptance
def test_a_picture_whose_bytes_are_gone_is_noted(bench_to: MakeBench, tmp_path: Path) -> None:
    with scripted(classes=EVERYTHING, statuses=[0, 0, ABORT]) as pacs:
        bench = bench_to(pacs.port, rules=CompanionRules(secondary_capture=True))
        series = assessed(bench, ct_series(tmp_path / "ct", "gone"))
        with bench.database.write() as connection:
            assert stored.forget_bytes(connection, bench.now + 1) == 5
        bench.pass_time(400, step_s=10)

    assert "the bytes were deleted after retention (4 of 5 not sent)" in str(
        only_delivery(bench, series).companions_note
    )
    assert len(pacs.received) == 3


@pytest.mark.peers
def test_orthanc_takes_pictures_and_map_and_shows_the_pictures(
    bench_to: MakeBench, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    need(request.config, "/usr/sbin/Orthanc")
    archive = Orthanc(tmp_path / "orthanc").start()
    try:
        bench = bench_to(archive.dicom_port, ae_title=archive.ae_title)
        series = assessed(bench, ct_series(tmp_path / "ct", "archived"))

        assert only_delivery(bench, series).state == "sent", only_delivery(bench, series).message
        found = archive.find("Instance", Modality="OT")
        assert len(found) == 6
        kept = {row.sop_instance_uid: row.part10 for kind in (CAPTURE, MAP) for row in built(bench, series, kind)}
        for entry in found:
            there = pydicom.dcmread(BytesIO(archive.file(entry["ID"])))
            ours = pydicom.dcmread(BytesIO(kept[str(there.SOPInstanceUID)] or b""))
            assert there == ours
            if there.SOPClassUID == CAPTURE:
                assert archive._call(f"/instances/{entry['ID']}/preview").startswith(b"\x89PNG")
        looked = verify(bench.node, ask_peers=True, advance=lambda done, total: None)
        assert looked.problems == ()
    finally:
        archive.stop()
