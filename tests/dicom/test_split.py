"""What separates planes at the same or interleaved positions, and what must not."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from dicom.test_stacks import series
from support.siblings import before_release

import mediqa_node
from mediqa_node.dicom import vendor_elements
from mediqa_node.dicom.stacks import split
from mediqa_node.dicom.stacks.assemble import assemble_stacks

SEPARATED = {
    "cardiac phase": ("NominalPercentageOfCardiacPhase", (40.0, 70.0, 75.0), "phase 40 %"),
    "trigger time": ("TriggerTime", (0.0, 33.0, 66.0), "trigger 33 ms"),
    "inversion time": ("InversionTime", (100.0, 400.0, 900.0), "TI 100 ms"),
    "kilovolts": ("KVP", (80.0, 140.0), "80 kV"),
    "kernel": ("ConvolutionKernel", ("B30f", "B70f"), "kernel B30f"),
    "thickness": ("SliceThickness", (1.25, 5.0), "slices of 1.25 mm"),
    "station": ("StationName", ("CT1", "CT2"), "station CT1"),
    "flip angle": ("FlipAngle", (5.0, 15.0), "flip angle 5"),
    "repetition time": ("RepetitionTime", (500.0, 2000.0), "TR 500 ms"),
    "acquisition": ("AcquisitionNumber", (1, 2), "acquisition 1"),
}


def at_once(keyword: str, values: tuple[Any, ...], *, n: int = 4) -> list[Any]:
    """One volume for each value, at the same positions."""
    return [
        header
        for turn, value in enumerate(values)
        for header in series(n, number=1 + 100 * turn, AcquisitionTime="120000", **{keyword: value})
    ]


@pytest.mark.parametrize("name", list(SEPARATED))
def test_volumes_at_the_same_positions_are_told_apart(name):
    keyword, values, label = SEPARATED[name]

    stacks = assemble_stacks(at_once(keyword, values))

    assert [len(stack.frames) for stack in stacks] == [4] * len(values)
    assert all(stack.flags == () for stack in stacks)
    assert label in [stack.key.label() for stack in stacks]


@pytest.mark.parametrize("name", list(SEPARATED))
def test_what_differs_in_every_slice_of_one_volume_splits_nothing(name):
    keyword, values, _ = SEPARATED[name]
    headers = series(8)
    for k, header in enumerate(headers):
        setattr(header, keyword, values[k % len(values)] if isinstance(values[0], str) else values[0] + k)

    [stack] = assemble_stacks(headers)

    assert (len(stack.frames), stack.flags) == (8, ())


def test_trigger_times_that_drift_from_slice_to_slice_are_counted_at_each_position():
    headers = [
        header
        for phase in range(3)
        for k, header in enumerate(series(4, number=1 + 100 * phase))
        if setattr(header, "TriggerTime", 30.0 * phase + 1.7 * k) is None
    ]

    stacks = assemble_stacks(headers)

    assert [len(stack.frames) for stack in stacks] == [4, 4, 4]
    assert [stack.key.label() for stack in stacks] == ["trigger 1", "trigger 2", "trigger 3"]


def beats(times_of_slice: Any, *, n: int = 8, phases: int = 3, keyword: str = "TriggerTime") -> list[Any]:
    """A cine: `phases` images at each of `n` positions, with a time of its own for each."""
    headers = []
    for phase in range(phases):
        for k, header in enumerate(series(n, number=1 + 100 * phase)):
            setattr(header, keyword, times_of_slice(k, phase))
            headers.append(header)
    return headers


DRIFTS = {
    "two heart rates, the first phase equal": lambda k, phase: (40.0 if k < 4 else 41.0) * phase,
    "two heart rates, some phases equal": lambda k, phase: phase * (800 if k < 5 else 900) / 20,
    "every slice its own": lambda k, phase: 30.0 * phase + 1.7 * k,
}


@pytest.mark.parametrize("keyword", ["TriggerTime", "InversionTime"])
@pytest.mark.parametrize("name", list(DRIFTS))
def test_times_that_drift_make_as_many_volumes_as_there_are_phases(name, keyword):
    stacks = assemble_stacks(beats(DRIFTS[name], keyword=keyword))

    assert [len(stack.frames) for stack in stacks] == [8, 8, 8]
    assert all(stack.flags == () for stack in stacks)


def test_a_temporal_position_that_counts_images_tells_time_points_by_its_order():
    headers = beats(lambda k, phase: 1 + k + 8 * phase, keyword="TemporalPositionIdentifier", phases=4)

    assert [len(stack.frames) for stack in assemble_stacks(headers)] == [8] * 4


@pytest.mark.parametrize("keyword", ["TemporalPositionIdentifier", "EchoTime"])
def test_one_repeated_slice_does_not_take_a_volume_apart(keyword):
    headers = [*series(14), *series(1, number=15)]
    for count, header in enumerate(headers):
        setattr(header, keyword, 1 + count if keyword != "EchoTime" else 80 + 0.1 * count)

    [stack] = assemble_stacks(headers)

    assert (len(stack.frames), stack.flags) == (14, ("duplicate_position",))


def test_time_points_that_were_corrected_for_motion_are_told_apart():
    headers = beats(lambda k, phase: 1 + phase, keyword="TemporalPositionIdentifier", phases=4)
    for count, header in enumerate(headers):
        header.ImagePositionPatient = [*header.ImagePositionPatient[:2], 5.0 * (count % 8) + 0.025 * (count // 8)]

    assert [len(stack.frames) for stack in assemble_stacks(headers)] == [8] * 4


@pytest.mark.parametrize("later", [{"AcquisitionDate": "20261130"}, {"AcquisitionDateTime": "20261130120000"}])
def test_passes_of_two_days_are_told_apart_whatever_the_time(later):
    first = {"AcquisitionDate": "20261129", "AcquisitionTime": "120000"}

    stacks = assemble_stacks([*series(5, **first), *series(5, number=100, **(first | later))])

    assert [stack.key.label() for stack in stacks] == ["pass 1", "pass 2"]


@pytest.mark.parametrize(("uids", "found"), [(2, [5, 5]), (10, [10])])
def test_positions_of_two_frames_of_reference_are_not_compared(uids, found):
    headers = series(10)
    for k, header in enumerate(headers):
        header.FrameOfReferenceUID = f"1.2.3.{k * uids // 10}"

    assert [len(stack.frames) for stack in assemble_stacks(headers)] == found


def test_a_phase_that_lacks_an_image_lacks_it_alone():
    headers = [h for i, h in enumerate(beats(DRIFTS["every slice its own"])) if i != 12]

    assert [len(stack.frames) for stack in assemble_stacks(headers)] == [8, 8, 7]


def test_echo_times_that_are_adjusted_from_slice_to_slice_are_counted_at_each_position():
    headers = beats(lambda k, echo: 10.0 + 70 * echo + 0.1 * (k % 2), phases=2, keyword="EchoTime")

    stacks = assemble_stacks(headers)

    assert [len(stack.frames) for stack in stacks] == [8, 8]
    assert [stack.key.label() for stack in stacks] == ["echo 10 ms", "echo 80 ms"]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("EchoTime", lambda k: 80 + 0.2 * k),
        ("EchoNumbers", lambda k: k + 1),
        ("TemporalPositionIdentifier", lambda k: k // 2),
    ],
)
def test_what_counts_slices_splits_no_volume(keyword, value):
    headers = series(16)
    for k, header in enumerate(headers):
        if keyword == "EchoNumbers" and "EchoTime" in header:
            del header.EchoTime
        setattr(header, keyword, value(k))

    assert [len(stack.frames) for stack in assemble_stacks(headers)] == [16]


def test_two_echoes_at_different_places_are_told_apart():
    low, high = series(5, EchoTime=10), series(5, number=100, EchoTime=80)
    for header in high:
        header.ImagePositionPatient = [-10, -20, header.ImagePositionPatient[2] + 500]

    assert [len(stack.frames) for stack in assemble_stacks(low + high)] == [5, 5]


def test_volumes_one_after_the_other_are_passes_if_nothing_else_tells_them_apart():
    headers = []
    for turn in range(4):
        for k, header in enumerate(series(5, number=1 + 100 * turn)):
            header.AcquisitionTime = f"12{turn:02}{k:02}"
            headers.append(header)

    stacks = assemble_stacks(headers)

    assert [stack.key.label() for stack in stacks] == ["pass 1", "pass 2", "pass 3", "pass 4"]
    assert all((len(stack.frames), stack.flags) == (5, ()) for stack in stacks)


def scan(*runs: list[int], jitter_mm: float = 0.0, **changes: Any) -> list[Any]:
    """Images of slices 5 mm apart, each acquired 1 s after the one before and each run a minute after the other."""
    headers = []
    for run, slices in enumerate(runs):
        for k, header in enumerate(series(len(slices), number=100 * run, **changes)):
            header.ImagePositionPatient = [-10, -20, 5.0 * slices[k] + jitter_mm * run]
            header.AcquisitionTime = f"12{run:02}{k:02}"
            headers.append(header)
    return headers


ALL = list(range(8))
PASSES = {
    "the last was aborted": ((ALL, ALL, ALL, ALL[:5]), [8, 8, 8, 5]),
    "the last was aborted at once": ((ALL, ALL, ALL, ALL[:2]), [8, 8, 8, 2]),
    "the first was aborted": ((ALL[:4], ALL), [8, 4]),
    "one lacks an image": ((ALL, ALL, [0, 1, 2, 4, 5, 6, 7]), [8, 8, 7]),
    "each lacks an image": ((ALL[1:], ALL[:-1]), [7, 7]),
    "back and forth": ((ALL, ALL[::-1], ALL[:5]), [8, 8, 5]),
    "odd slices first": (([0, 2, 4, 6, 1, 3, 5, 7], [0, 2, 4, 6, 1, 3]), [8, 6]),
}


OFTEN = ("the last was aborted", "each lacks an image")


@pytest.mark.parametrize("name", [*OFTEN, *before_release(*(name for name in PASSES if name not in OFTEN))])
def test_passes_are_told_apart_though_images_are_missing(name):
    runs, lengths = PASSES[name]

    stacks = assemble_stacks(scan(*runs))

    assert [len(stack.frames) for stack in stacks] == lengths
    assert not any("duplicate_position" in stack.flags for stack in stacks)


@pytest.mark.parametrize("runs", [(ALL, [3]), (ALL, [3, 4]), (ALL[:6], ALL[5:]), (ALL[:4], ALL[3:]), ([0], ALL)])
def test_a_slice_that_was_repeated_is_no_pass(runs):
    [stack] = assemble_stacks(scan(*runs))

    assert (len(stack.frames), stack.flags) == (8, ("duplicate_position",))


@pytest.mark.parametrize(
    "changes", [{}, *before_release({"EchoNumbers": 1, "modality": "MR"}, {"AcquisitionNumber": 1})], ids=str
)
def test_passes_that_lie_a_hundredth_apart_are_told_apart(changes):
    headers = scan(ALL, ALL, ALL, jitter_mm=0.02, **changes)
    for header in headers:
        for keyword in changes.keys() - {"modality"}:
            header[keyword].value = 1 + round(header.ImagePositionPatient[2] % 5 / 0.02)

    stacks = assemble_stacks(headers)

    assert [(len(stack.frames), stack.flags) for stack in stacks] == [(8, ())] * 3


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("EchoTime", lambda k, turn: 10.0 + 70 * turn + 0.1 * (k % 2)),
        *before_release(
            ("TriggerTime", lambda k, turn: 30.0 * turn + 1.7 * k),
            ("TemporalPositionIdentifier", lambda k, turn: 1 + k + 8 * turn),
        ),
    ],
)
def test_values_that_drift_between_positions_that_jitter_make_as_many_volumes(keyword, value):
    headers = beats(value, keyword=keyword)
    for count, header in enumerate(headers):
        header.ImagePositionPatient = [-10, -20, 5.0 * (count % 8) + 0.02 * (count // 8)]

    assert [(len(stack.frames), stack.flags) for stack in assemble_stacks(headers)] == [(8, ())] * 3


@pytest.mark.parametrize("pitch_mm", [0.6, 3.0])
def test_blocks_of_slices_stay_whole_though_something_counts_the_slices(pitch_mm):
    headers = series(15, modality="MR")
    for k, header in enumerate(headers):
        header.ImagePositionPatient = [-10, -20, 10 * pitch_mm * (k // 3) + pitch_mm * (k % 3)]
        header.TriggerTime, header.AcquisitionTime = 30.0 * k, f"1200{k:02}"

    assert [(len(stack.frames), stack.flags) for stack in assemble_stacks(headers)] == [(15, ("gap",))]


def test_images_sent_twice_are_no_passes():
    stacks = assemble_stacks(series(5, AcquisitionTime="120000") + series(5, number=100, AcquisitionTime="120000"))

    assert [(len(stack.frames), stack.flags) for stack in stacks] == [(5, ("duplicate_position",))]


def test_the_origin_is_compared_and_not_rounded():
    wide, narrow = series(8), series(8, number=100)
    for k, header in enumerate(wide):
        header.ImagePositionPatient = [-10.5 + 1e-4 * (-1) ** k, -20, header.ImagePositionPatient[2]]
    for header in narrow:
        header.ImagePositionPatient = [-5, -8, header.ImagePositionPatient[2]]

    assert [len(stack.frames) for stack in assemble_stacks(wide + narrow)] == [8, 8]


def test_two_fields_of_view_with_a_tilted_gantry_are_told_apart():
    tilted = [1, 0, 0, 0, 0.9397, -0.342]
    wide, narrow = (series(10, number=1 + 100 * i, ImageOrientationPatient=tilted) for i in range(2))
    for shift, headers in ((0, wide), (30, narrow)):
        for k, header in enumerate(headers):
            header.ImagePositionPatient = [-100 + shift, -100, 5.0 * k]

    assert [len(stack.frames) for stack in assemble_stacks(wide + narrow)] == [10, 10]


def test_two_fields_of_view_at_the_same_positions_are_told_apart():
    wide, narrow = series(4), series(4, number=100)
    for header in narrow:
        header.ImagePositionPatient = [-5, -8, header.ImagePositionPatient[2]]

    assert [len(stack.frames) for stack in assemble_stacks(wide + narrow)] == [4, 4]


def test_two_keys_separate_what_one_does_not():
    headers = at_once("KVP", (80.0, 140.0)) + [
        header
        for turn, value in enumerate((80.0, 140.0))
        for header in series(4, number=500 + 100 * turn, KVP=value, ConvolutionKernel="B70f")
    ]

    stacks = assemble_stacks(headers)

    assert len(stacks) == 4
    assert all(stack.flags == () for stack in stacks)


# ── positions that cannot be true ────────────────────────────────────────────


COUNTED = {
    "AcquisitionNumber": lambda k: k + 1,
    "TemporalPositionIdentifier": lambda k: k + 1,
    "TriggerTime": lambda k: 30.0 * k,
    "EchoTime": lambda k: 20.0 + k,
}


@pytest.mark.parametrize(
    "keyword", ["TriggerTime", *before_release(*(name for name in COUNTED if name != "TriggerTime"))]
)
@pytest.mark.parametrize(
    ("location", "found"),
    [(lambda k: 5.0 * k, [("duplicate_position",)]), (lambda k: 7.0, [()] * 8), (lambda k: None, [()] * 8)],
    ids=["counts", "constant", "missing"],
)
def test_one_position_with_something_that_counts_is_a_cine_unless_slice_location_says_no(keyword, location, found):
    headers = series(8, step_mm=0)
    for k, header in enumerate(headers):
        setattr(header, keyword, COUNTED[keyword](k))
        header.SliceLocation = location(k)

    assert [stack.flags for stack in assemble_stacks(headers)] == found


AXIAL, CORONAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1]
ALONG_PLANE = {
    "one position along the normal": lambda k: [4.0 * k, 0, 0],
    "half a millimetre along the normal": lambda k: [4.0 * k, 0, 0.5 * k],
    "at 60 degrees": lambda k: [3.5 * k, 0, 2.0 * k],
}


@pytest.mark.parametrize("counted", [{}, {"AcquisitionNumber": 1}])
@pytest.mark.parametrize("name", list(ALONG_PLANE))
def test_slices_with_the_orientation_of_others_are_flagged(name, counted):
    headers = series(8)
    for k, header in enumerate(headers):
        header.ImagePositionPatient = ALONG_PLANE[name](k)
        if counted:
            header.AcquisitionNumber = k + 1

    [stack] = assemble_stacks(headers)

    assert "orientation" in stack.flags
    assert ("duplicate_position" in stack.flags) is (len(stack.frames) == 1)


TRUE_PLACES = {
    "a gantry tilted by 30 degrees": (AXIAL, lambda k: [0, 2.5 * k, 4.33 * k], 1),
    "coronal stations of one image": (CORONAL, lambda k: [0, 0, -40.0 * k], 8),
    "two knees, one after the other": (AXIAL, lambda k: [100.0 * (k // 4), 0, 4.0 * k], 1),
    "two knees by turns": (AXIAL, lambda k: [100.0 * (k % 2), 0, 4.0 * k], 1),
    "a cine with an origin that drifts": (AXIAL, lambda k: [0.1 * k, 0, 0], 1),
    "a cine that is corrected for motion": (AXIAL, lambda k: [(0, 3, 1, 4, 2, 5, 1, 3)[k], (2, 0, 1, 4)[k % 4], 0], 2),
}


@pytest.mark.parametrize("name", list(TRUE_PLACES))
def test_places_that_look_odd_and_are_true_raise_no_doubt(name):
    orientation, place, n_stacks = TRUE_PLACES[name]
    headers = series(8, ImageOrientationPatient=orientation)
    for k, header in enumerate(headers):
        header.ImagePositionPatient = place(k)

    stacks = assemble_stacks(headers)

    assert len(stacks) == n_stacks
    assert not any("orientation" in stack.flags for stack in stacks)


# ── passes that interleave ───────────────────────────────────────────────────


def passes(first: list[float], second: list[float], **changes: Any) -> list[Any]:
    headers = []
    for number, positions in enumerate((first, second), start=1):
        for k, header in enumerate(series(len(positions), number=100 * number, AcquisitionNumber=number, **changes)):
            header.ImagePositionPatient = [-10, -20, positions[k]]
            header.SOPInstanceUID = f"1.2.3.{number}.{k}"
            headers.append(header)
    return headers


def test_passes_that_overlap_between_each_others_positions_are_told_apart():
    stacks = assemble_stacks(passes([3.0 * k for k in range(14)], [31.5 + 3.0 * k for k in range(14)]))

    assert [len(stack.frames) for stack in stacks] == [14, 14]
    assert all(stack.flags == () for stack in stacks)


def test_a_pass_that_lacks_an_image_is_told_apart_all_the_same():
    stacks = assemble_stacks(passes([3.0 * k for k in range(14) if k != 6], [31.5 + 3.0 * k for k in range(14)]))

    assert [(len(stack.frames), stack.flags) for stack in stacks] == [(14, ()), (13, ("gap",))]


def acquisitions(*runs: Iterable[int]) -> list[Any]:
    """Images of slices 5 mm apart, each run an acquisition of its own; nothing tells when."""
    return [
        header
        for number, slices in enumerate(runs, start=1)
        for k in slices
        for header in series(1, number=100 * number + k, AcquisitionNumber=number)
        if setattr(header, "ImagePositionPatient", [-10, -20, 5.0 * k]) is None
    ]


@pytest.mark.parametrize("overlap", [4, *before_release(1, 6)])
@pytest.mark.parametrize("count", [3, *before_release(2, 6)])
def test_passes_whose_overlaps_coincide_are_told_apart(count, overlap):
    stacks = assemble_stacks(acquisitions(*(range(n * (14 - overlap), n * (14 - overlap) + 14) for n in range(count))))

    assert [(len(stack.frames), stack.flags) for stack in stacks] == [(14, ())] * count


ROTATIONS = {
    "one of 4 slices was repeated": [range(4 * n, 4 * n + 4) for n in (0, 1, 2, 3, 1)],
    "one of 8 slices was repeated": [range(8 * n, 8 * n + 8) for n in (0, 1, 2, 3, 1)],
    "4 slices, the last of which coincides": [range(3 * n, 3 * n + 4) for n in range(5)],
    "odd and even slices, one repeated": [range(0, 20, 2), [*range(1, 20, 2), 4]],
    "two of 8 slices overlap": [range(8 * n - (n > 1), 8 * n - (n > 1) + 8) for n in range(4)],
}


@pytest.mark.parametrize("name", list(ROTATIONS))
def test_rotations_of_one_volume_stay_whole(name):
    [stack] = assemble_stacks(acquisitions(*ROTATIONS[name]))

    assert stack.flags == ("duplicate_position",)


def test_interleaved_halves_of_one_volume_stay_whole():
    [stack] = assemble_stacks(passes([6.0 * k for k in range(7)], [3.0 + 6.0 * k for k in range(7)]))

    assert (len(stack.frames), stack.flags) == (14, ())


def test_passes_one_after_the_other_stay_whole():
    [stack] = assemble_stacks(passes([3.0 * k for k in range(8)], [30.0 + 5.0 * k for k in range(6)]))

    assert len(stack.frames) == 14
    assert stack.flags


def test_the_documents_list_every_attribute_that_separates_and_every_element_of_a_vendor():
    page = (Path(mediqa_node.__file__).parent / "docs" / "physics.md").read_text(encoding="utf-8")

    for name, _ in (*split.SEPARATORS, *split.LAST_SEPARATORS):
        assert f"| `{name.partition('{')[0]}" in page
    for element in (*vendor_elements.B_VALUES, *vendor_elements.TILE_COUNTS):
        assert str(element) in page
        assert f"`{element.creator}`" in page
    assert all(f"`{word}` in Image Type" in page for word in vendor_elements.TILED_TYPES)
