"""Every series is measured where its pixels allow, scored or not; nothing measured stands in the way of a score."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pipeline.test_dose_reports import dose_report
from pydicom import Dataset
from support.bench import Bench
from support.corrections import RULES, SCANNER
from support.series import ct_series, reject_note, series_uid

from mediqa_node.dicom.photograph import wrap_photograph
from mediqa_node.domain.baseline import HEADING, Group, usual_values
from mediqa_node.domain.measures import Limit, MeasuredStack, Validity
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import ScorePolicy
from mediqa_node.domain.quantities import CT_NOISE, CT_QUANTITIES, QUANTITIES, STACK_QUANTITIES
from mediqa_node.domain.rules import PhantomRule, ReturnRule
from mediqa_node.pipeline import report
from mediqa_node.pipeline.measures import measure_series
from mediqa_node.pipeline.score import harvest_series, read_headers
from mediqa_node.storage import baselines, measures

Make = Callable[..., Bench]
NAMES = {one.name for one in (*CT_QUANTITIES, *STACK_QUANTITIES)}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def bench(**policy: Any) -> Bench:
        made.append(Bench(tmp_path / "bench", **policy))
        return made[-1]

    yield bench
    for one in made:
        one.close()


def chest(folder: Path, name: str = "x", *, noise_hu: float = 15.0, **changes: Any) -> list[Path]:
    """Nine slices of a trunk of water of 320 x 220 mm, 128 x 128 pixels of 3 mm."""
    paths = ct_series(folder, name, slices=range(9), size_px=128, study="s", event="e", **changes)
    y, x = np.mgrid[-192:192:128j, -192:192:128j]
    for number, path in enumerate(paths):
        ds = pydicom.dcmread(path)
        ds.PixelSpacing = [3.0, 3.0]
        noise = np.random.default_rng(number).normal(0, noise_hu, x.shape)
        water = np.where((x / 160) ** 2 + (y / 110) ** 2 < 1, 40.0 + noise, -1000.0)
        ds.PixelData = np.rint(water).astype("<i2").tobytes()
        ds.save_as(path)
    return paths


def kept(bench: Bench, paths: list[Path]) -> MeasuredStack | None:
    with bench.database.read() as connection:
        return measures.load(connection, series_uid(paths), bench.series(series_uid(paths)).generation)


def test_a_scored_series_is_measured_with_what_it_may_be_compared_by(make: Make, tmp_path: Path) -> None:
    bench = make()
    bench.receive_all(paths := chest(tmp_path / "x"))
    bench.pass_time(30, step_s=5)

    found = kept(bench, paths)

    assert found is not None
    assert bench.series(series_uid(paths)).state == "ASSESSED"
    assert {one.name for one in found.measures} == NAMES
    noise, size = found.measure("ct.noise.soft"), found.measure("ct.dw")
    assert noise is not None and size is not None
    assert noise.value == pytest.approx(15.0, rel=0.1)
    assert size.value == pytest.approx(np.sqrt(320 * 220 * 1.04), rel=0.02)
    assert (found.scanner, found.protocol, found.stack) == ("CT_ROOM_1", "Abdomen", "all images")
    assert (found.size_class, found.body_part, found.kernel) == ("Dw 240-280 mm", "body", "B30f")
    assert found.acquired == "2026-11-20 10:15:00"


def test_a_series_that_is_too_old_to_score_is_measured(make: Make, tmp_path: Path) -> None:
    bench = make(score=ScorePolicy(max_age_days=1))
    bench.receive_all(paths := chest(tmp_path / "x", StudyDate="20200101"))
    bench.pass_time(30, step_s=5)

    found = kept(bench, paths)

    assert bench.series(series_uid(paths)).state == "NOT_SCORED"
    assert found is not None
    assert found.measure("ct.noise.soft") is not None


def test_a_phantom_is_measured_both_ways(make: Make, tmp_path: Path) -> None:
    bench = make(score=ScorePolicy(phantoms=(PhantomRule(name="water", patient_id="^SYN"),)))
    bench.receive_all(paths := chest(tmp_path / "x"))
    bench.pass_time(30, step_s=5)

    assert str(bench.series(series_uid(paths)).reason).startswith("phantom")
    assert kept(bench, paths) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
        {"SeriesDescription": "Z-eff"},
    ],
    ids=["localizer", "secondary_capture", "map"],
)
def test_pixels_that_are_no_slice_are_not_measured(changes: dict[str, Any], make: Make, tmp_path: Path) -> None:
    bench = make()
    bench.receive_all(paths := chest(tmp_path / "x", **changes))
    bench.pass_time(30, step_s=5)

    assert bench.series(series_uid(paths)).state == "NOT_SCORED"
    assert kept(bench, paths) is None


def test_a_refused_series_that_is_measured_keeps_its_dose_and_its_doubts(tmp_path: Path, make: Make) -> None:
    phantom = Dataset()
    phantom.CodeValue, phantom.CodingSchemeDesignator, phantom.CodeMeaning = "113691", "DCM", "IEC Body Phantom"
    stated = {"BurnedInAnnotation": "YES", "CTDIvol": 10.0, "CTDIPhantomTypeCodeSequence": [phantom]}
    prompts = make().node.assessor.prompts  # type: ignore[union-attr]
    whole = read_headers(chest(tmp_path / "x", **stated))
    unscaled = read_headers(chest(tmp_path / "y", **stated, RescaleSlope=None, RescaleIntercept=None))

    found, doubtful = (measure_series(files, harvest_series(files), prompts) for files in (whole, unscaled))

    assert found is not None and doubtful is not None
    ssde, noise = found.measure("ct.ssde"), doubtful.measure("ct.noise.soft")
    assert ssde is not None and ssde.value is not None and ssde.value > 10
    assert found.kernel == "B30f"
    assert noise is not None and noise.limit is Limit.DOUBTFUL_PIXELS


def test_all_photographs_of_a_series_are_measured(tmp_path: Path, make: Make) -> None:
    photographs = sorted((Path(__file__).parents[1] / "data" / "fundus_chasedb1").glob("*.jpg"))[:2]
    paths = []
    for number, photograph in enumerate(photographs):
        ds = wrap_photograph(np.asarray(Image.open(photograph).convert("RGB")))
        ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.4"
        ds.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
        paths.append(tmp_path / f"{number}.dcm")
    files = read_headers(paths)

    found = measure_series(files, harvest_series(files), make().node.assessor.prompts)  # type: ignore[union-attr]

    assert found is not None
    focus = found.measure("op.focus")
    assert focus is not None and focus.n == 2 and focus.spread is not None
    assert len(found.frames) == 2


def test_a_fault_of_one_kind_of_measure_leaves_the_others(tmp_path: Path, make: Make, monkeypatch: Any) -> None:
    from mediqa_node.image.measure.ct import series as of_ct

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(of_ct, "patient_mask", broken)
    files = read_headers(chest(tmp_path / "x"))

    found = measure_series(files, harvest_series(files), make().node.assessor.prompts)  # type: ignore[union-attr]

    assert found is not None
    limits = {one.name: one.limit for one in found.measures}
    assert limits["ct.noise.soft"] is limits["ct.dw"] is Limit.FAILED
    assert limits["stack.repeated_slices"] is None


def test_a_site_chooses_what_is_measured(make: Make, tmp_path: Path) -> None:
    bench = make(score=ScorePolicy(measures=("ct.noise.soft",)))
    bench.receive_all(paths := chest(tmp_path / "x"))
    bench.pass_time(30, step_s=5)

    found = kept(bench, paths)

    assert found is not None
    assert [one.name for one in found.measures] == ["ct.noise.soft", "ct.dw"], "size goes with any measure of CT"


def test_nothing_is_measured_where_a_site_turns_it_off(make: Make, tmp_path: Path) -> None:
    bench = make(score=ScorePolicy(measures=()))
    bench.receive_all(paths := chest(tmp_path / "x"))
    bench.pass_time(30, step_s=5)

    assert kept(bench, paths) is None
    assert bench.series(series_uid(paths)).state == "ASSESSED"


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no measures ct\.beauty; known: all, or a list of ct\.noise\.soft"):
        ScorePolicy(measures=("ct.beauty",))


def test_broken_pixels_give_no_measure_and_no_error(tmp_path: Path, make: Make) -> None:
    paths = chest(tmp_path / "x")
    for path in paths:
        ds = pydicom.dcmread(path)
        ds.PixelData = ds.PixelData[: len(ds.PixelData) // 3]
        ds.save_as(path)
    files = read_headers(paths)
    assessor = make().node.assessor
    assert assessor is not None

    found = measure_series(files, harvest_series(files), assessor.prompts)

    assert found is None or all(one.value is None for one in found.measures if one.name.startswith("ct."))


def test_one_broken_slice_costs_one_slice(tmp_path: Path, make: Make) -> None:
    paths = chest(tmp_path / "x")
    ds = pydicom.dcmread(paths[4])
    ds.PixelData = ds.PixelData[: len(ds.PixelData) // 3]
    ds.save_as(paths[4])
    files = read_headers(paths)
    assessor = make().node.assessor
    assert assessor is not None

    found = measure_series(files, harvest_series(files), assessor.prompts)

    assert found is not None
    size, noise = found.measure("ct.dw"), found.measure("ct.noise.soft")
    assert size is not None and noise is not None
    assert (size.n, noise.n) == (8, 8)


def test_every_series_of_the_clone_gives_every_measure_a_value_or_a_reason(make: Make) -> None:
    data = Path(__file__).parents[1] / "data"
    prompts = make().node.assessor.prompts  # type: ignore[union-attr]
    seen = set()
    for folder in sorted({path.parent for path in data.rglob("*.dcm")} - {data / "refuse"}):
        files = read_headers(sorted(folder.glob("*.dcm")))
        found = measure_series(files, harvest_series(files), prompts)
        for one in found.measures if found is not None else ():
            seen.add(one.name)
            assert one.unit, one.name
            assert (one.value is None) == (one.validity is Validity.NOT_MEASURABLE)
            assert bool(one.reason) == (one.validity is not Validity.VALID)
            assert one.value is None or np.isfinite(one.value)
            assert one.uncertainty is None or one.uncertainty >= 0
            assert json.dumps(one.as_dict(), allow_nan=False)
    assert {name for name in QUANTITIES if name.startswith(("ct.", "mr.", "stack."))} <= seen


def test_a_single_image_is_not_asked_about_its_neighbours(tmp_path: Path, make: Make) -> None:
    files = read_headers(chest(tmp_path / "x")[:1])
    assessor = make().node.assessor
    assert assessor is not None

    found = measure_series(files, harvest_series(files), assessor.prompts)

    assert found is not None
    assert [one.name for one in found.measures if one.name.startswith("stack.")] == ["stack.burned_in_text"]


# ── dose that comes late ─────────────────────────────────────────────────────


def test_a_dose_report_that_comes_later_gives_the_dose_without_the_pixels(make: Make, tmp_path: Path) -> None:
    bench = make(receiver=RULES)
    bench.receive_all(paths := chest(tmp_path / "x"), **SCANNER)
    bench.pass_time(30, step_s=5)
    before = kept(bench, paths)
    report_path = dose_report(tmp_path / "d", 1, 300)

    bench.receive_all([report_path], association="a2", **SCANNER)
    bench.pass_time(30, step_s=5)
    after = kept(bench, paths)
    bench.receive_all([reject_note(tmp_path / "n", [report_path])], association="a3", **SCANNER)
    bench.pass_time(30, step_s=5)
    at_last = kept(bench, paths)

    assert before is not None and after is not None and at_last is not None
    none, some, none_again = (one.measure("ct.ssde") for one in (before, after, at_last))
    assert none is not None and some is not None and none_again is not None
    assert (none.limit, some.limit, none_again.limit) == (Limit.NO_DOSE, None, Limit.NO_DOSE)
    size = after.measure("ct.dw")
    assert size is not None and size.value is not None
    assert some.value == pytest.approx(8.5 * 3.704369 * np.exp(-0.03671937 * size.value / 10))
    assert (after.ctdi_vol_mgy, after.ctdi_phantom_cm) == (8.5, 32)
    merit = after.measure("ct.figure_of_merit")
    assert merit is not None and merit.value is not None
    assert before.measure("ct.noise.soft") == after.measure("ct.noise.soft")


# ── the report ───────────────────────────────────────────────────────────────


def test_the_report_holds_the_measures_and_what_stands_out(make: Make, tmp_path: Path) -> None:
    peer = Peer(name="PACS", ae_title="PACS", host="127.0.0.1", port=1)
    bench = make(peers=[peer], returns=[ReturnRule(to=("PACS",))])
    bench.receive_all(paths := chest(tmp_path / "x", noise_hu=40.0))
    bench.pass_time(30, step_s=5)
    found = kept(bench, paths)
    assert found is not None
    noise = found.measure("ct.noise.soft")
    assert noise is not None
    quiet = [
        replace(found, study_instance_uid=f"1.2.{i}", measures=(CT_NOISE.measured(10.0 + i % 5, n=9),))
        for i in range(40)
    ]
    usual = usual_values(quiet)
    assert {one.group for one in usual} == {Group.of(found)}
    with bench.database.write() as connection:
        number = baselines.make(connection, usual, since=0.0, until=1.0, by="Curie", now=2.0)
        baselines.approve(connection, number, by="Curie", now=3.0)

    row = report.report_for(bench.node, series_uid(paths), 1, "1.2.840.10008.5.1.4.1.1.88.34")

    text = row.part10.decode("latin-1")
    assert "IQA measures" in text
    assert f"{HEADING}: noise in soft tissue" in text
    assert "usual here 12.0 +- 1.5 for Dw 240-280 mm (40 exams, baseline 1)" in text
