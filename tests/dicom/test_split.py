"""What separates planes at the same or interleaved positions, and what must not."""

from pathlib import Path
from typing import Any

import pytest
from dicom.test_stacks import series

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
    "station": ("StationName", ("CT1", "CT2"), "station CT1"),
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


def test_interleaved_halves_of_one_volume_stay_whole():
    [stack] = assemble_stacks(passes([6.0 * k for k in range(7)], [3.0 + 6.0 * k for k in range(7)]))

    assert (len(stack.frames), stack.flags) == (14, ())


def test_passes_one_after_the_other_stay_whole():
    [stack] = assemble_stacks(passes([3.0 * k for k in range(8)], [30.0 + 5.0 * k for k in range(6)]))

    assert len(stack.frames) == 14
    assert stack.flags


def test_the_documents_list_every_attribute_that_separates_and_every_element_of_a_vendor():
    page = (Path(mediqa_node.__file__).parent / "docs" / "physics.md").read_text(encoding="utf-8")

    for name, _ in split.SEPARATORS:
        assert f"| `{name.partition('{')[0]}" in page
    for element in (*vendor_elements.B_VALUES, *vendor_elements.TILE_COUNTS):
        assert str(element) in page
        assert f"`{element.creator}`" in page
    assert all(f"`{word}` in Image Type" in page for word in vendor_elements.TILED_TYPES)
