"""Pairs whose order of quality the headers tell, and near misses, which are none."""

from typing import Any

import pytest
from support.reconstructions import ct, facts, kinds, mr

THIN = {"SliceThickness": 1, "SeriesDescription": "Thorax 1.0"}
SHARP = {"ConvolutionKernel": "B70f", "SeriesDescription": "Thorax lung"}
LATER = {"AcquisitionTime": "102000", "AcquisitionNumber": 3, "IrradiationEventUID": "1.2.8.2"}
LATER_MR = {"AcquisitionTime": "102000", "AcquisitionNumber": 3}
LOW = {**LATER, "Exposure": 50, "XRayTubeCurrent": 100, "SeriesDescription": "Thorax low dose"}
NEAR_MISSES: list[dict[str, Any]] = [
    {"PatientID": "P2"},
    {"PatientID": ""},
    {"IssuerOfPatientID": "OTHER"},
    {"StationName": "ROOM_4"},
    {"KVP": 100},
    {"FrameOfReferenceUID": "1.2.10"},
    {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]},
    {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "MONO"]},
    {"PixelSpacing": [0.7, 0.7]},
    {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
    {"n": 3},
    {"SpiralPitchFactor": 0.6},
    {"Rows": 128, "Columns": 128},
    {"NumberOfTemporalPositions": 8},
    {"ProtocolName": "Perfusion"},
    {"ContrastBolusAgent": "Iohexol"},
    {"ProtocolName": "Thorax arterial"},
    {"NominalPercentageOfCardiacPhase": 70},
]


def spread(**changes: Any) -> dict[str, Any]:
    """Return changes that `series` understands: positions along another axis where the orientation changes."""
    if "ImageOrientationPatient" in changes:
        changes["each_ImagePositionPatient"] = [[0, 5.0 * i, 0] for i in range(8)]
    return changes


def test_thick_and_thin_slices_of_one_acquisition_are_a_pair() -> None:
    assert kinds(ct(1), ct(2, **THIN)) == {"thickness": ("1", "2")}
    assert kinds(ct(2, **THIN), ct(1)) == {"thickness": ("1", "2")}


def test_without_an_event_frame_number_and_time_name_the_acquisition() -> None:
    without = {"IrradiationEventUID": None}

    assert kinds(ct(1, **without), ct(2, **THIN, **without)) == {"thickness": ("1", "2")}
    assert kinds(ct(1, **without), ct(2, **THIN, **without | {"AcquisitionTime": "101501"})) == {}


@pytest.mark.parametrize("change", NEAR_MISSES, ids=lambda change: next(iter(change)))
@pytest.mark.parametrize("pair", [THIN, SHARP, LOW], ids=["thickness", "kernel", "dose"])
def test_two_ct_series_that_differ_in_anything_else_are_none(pair: dict[str, Any], change: dict[str, Any]) -> None:
    assert kinds(ct(1), ct(2, **pair)) != {}
    assert kinds(ct(1), ct(2, **spread(**pair | change))) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"ConvolutionKernel": "B40f"},
        {"ConvolutionKernel": "B31f\\3"},
        {"SliceThickness": 4},
        {"IrradiationEventUID": "1.2.8.7", "AcquisitionTime": "101530"},
        {"AcquisitionNumber": 3},
        {"AcquisitionTime": "101630"},
        {"AcquisitionTime": None},
        {"SeriesDescription": "Thorax venous 1.0"},
    ],
    ids=["kernel", "strength", "nearly as thick", "event", "number", "a minute later", "no time", "phase"],
)
def test_thickness_is_compared_within_one_acquisition_and_kernel(change: dict[str, Any]) -> None:
    assert "thickness" not in kinds(ct(1), ct(2, **THIN | change))


def test_phases_of_a_contrast_agent_are_compared_within_one_phase() -> None:
    arterial = {"ContrastBolusAgent": "Iohexol", "SeriesDescription": "Abdomen arterial"}
    venous = {**arterial, "SeriesDescription": "Abdomen venous", **LATER}
    thin = {"SliceThickness": 1}

    assert kinds(ct(1, **arterial), ct(2, **venous)) == {}
    assert kinds(ct(1, **arterial), ct(2, **arterial | thin)) == {"thickness": ("1", "2")}
    assert kinds(ct(1, **arterial), ct(2, **venous | thin)) == {}
    assert kinds(ct(1, **arterial), ct(2, **venous | thin | {"IrradiationEventUID": "1.2.8.1"})) == {}


def test_a_soft_and_a_sharp_kernel_of_one_acquisition_are_a_pair() -> None:
    assert kinds(ct(1), ct(2, **SHARP)) == {"kernel": ("1", "2")}
    assert kinds(ct(2, **SHARP), ct(1)) == {"kernel": ("1", "2")}


@pytest.mark.parametrize(
    "change",
    [
        {"ConvolutionKernel": "B45f"},
        {"ConvolutionKernel": "X99"},
        {"ConvolutionKernel": "I70f\\3"},
        {"SliceThickness": 3},
        LATER,
    ],
    ids=["both soft", "unknown", "iterative", "thickness", "another acquisition"],
)
def test_kernels_whose_order_the_table_does_not_tell_are_none(change: dict[str, Any]) -> None:
    assert kinds(ct(1), ct(2, **SHARP | change)).get("kernel") is None


def test_a_series_that_comes_again_within_the_hour_is_a_pair() -> None:
    assert kinds(ct(1), ct(2, **LATER)) == {"repeat": ("2", "1")}
    assert kinds(mr(1), mr(2, **LATER_MR)) == {"repeat": ("2", "1")}
    assert kinds(mr(2, **LATER_MR), mr(1)) == {"repeat": ("2", "1")}


@pytest.mark.parametrize(
    "change",
    [
        {"AcquisitionTime": "111600"},
        {"AcquisitionTime": "101510"},
        {"AcquisitionTime": "101500"},
        {"AcquisitionTime": None},
        {"SeriesDescription": "t2_tse_tra_fs"},
        {"ProtocolName": "t2_tse_tra_dyn"},
        {"SeriesDescription": "t2_tse_tra post"},
        {"ContrastBolusAgent": "Gadobutrol"},
        {"EchoTime": 30},
        {"RepetitionTime": 5000},
        {"FlipAngle": 90},
        {"NumberOfAverages": 4},
        {"DiffusionBValue": 1000.0},
        {"EchoNumbers": 2},
        {"TemporalPositionIdentifier": 2},
        {"InPlanePhaseEncodingDirection": "ROW"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "P"]},
        {"SliceThickness": 3},
        {"FrameOfReferenceUID": "1.2.10"},
        {"PatientID": "P2"},
        {"n": 3},
    ],
    ids=lambda change: "-".join(map(str, next(iter(change.items())))),
)
def test_what_may_be_another_series_is_no_repetition(change: dict[str, Any]) -> None:
    assert kinds(mr(1), mr(2, **LATER_MR | change)) == {}


def test_three_of_a_kind_are_a_dynamic_series() -> None:
    third = mr(3, AcquisitionTime="102500", AcquisitionNumber=4)

    assert kinds(mr(1), mr(2, **LATER_MR), third) == {}


def test_no_repetition_in_a_study_where_any_series_had_a_contrast_agent() -> None:
    enhanced = mr(3, SeriesDescription="t1_tse_tra", EchoTime=10, ContrastBolusAgent="Gadobutrol")

    assert kinds(mr(1), mr(2, **LATER_MR), enhanced) == {}


def test_two_tube_charges_of_one_protocol_are_a_pair() -> None:
    assert kinds(ct(1), ct(2, **LOW)) == {"dose": ("1", "2")}
    assert kinds(ct(2, **LOW), ct(1)) == {"dose": ("1", "2")}


@pytest.mark.parametrize(
    "change",
    [
        {"Exposure": 80, "XRayTubeCurrent": 160},
        {"Exposure": None, "XRayTubeCurrent": None},
        {"ProtocolName": "Thorax Low Dose"},
        {"ConvolutionKernel": "B40f"},
        {"SliceThickness": 3},
        {"AcquisitionTime": "121500"},
        {"each_ImagePositionPatient": [[0, 0, 200 + 5.0 * i] for i in range(8)]},
        {"SeriesDescription": "Thorax exspiration"},
    ],
    ids=["factor", "unknown", "protocol", "kernel", "thickness", "hours later", "region", "phase"],
)
def test_doses_are_compared_all_else_equal(change: dict[str, Any]) -> None:
    assert kinds(ct(1), ct(2, **LOW | change)) == {}


def test_a_study_gives_one_pair_of_a_kind_that_with_the_largest_contrast() -> None:
    study = [ct(n, SliceThickness=mm, SeriesDescription=f"Thorax {mm}") for n, mm in enumerate((5, 3, 1), start=1)]

    assert kinds(*study) == {"thickness": ("1", "3")}


def test_the_patient_is_not_in_what_could_reach_a_log() -> None:
    assert "P1" not in repr(facts(ct(1)))
    assert "HOSPITAL" not in repr(facts(ct(1)))
