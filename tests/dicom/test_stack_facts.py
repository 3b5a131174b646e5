"""What of a header measures of the pixels depend on."""

import numpy as np
import pytest
from pydicom import Dataset
from support.header_builders import MR, series

from mediqa_node.dicom.header import frame_header
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.dicom.technique.harvest import harvest
from mediqa_node.dicom.technique.stack_facts import body_part, ct_facts, mr_facts
from mediqa_node.domain.measure_facts import CtFacts, MrFacts


def of_ct(**values: object) -> CtFacts:
    headers = series(KVP=120, Exposure=100, **values)
    return ct_facts(assemble_stacks(headers)[0], harvest(headers), "chest")


def of_mr(**values: object) -> MrFacts:
    headers: list[Dataset] = series(MR, n=1, **values)
    return mr_facts(frame_header(headers[0], None))


@pytest.mark.parametrize(("degrees", "across"), [(0, True), (20, True), (21, False), (90, False)])
def test_slices_lie_across_the_patient_up_to_a_tilt_of_20_degrees(degrees: float, across: bool) -> None:
    y, z = float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))
    steps = [[0.0, -5.0 * z * i, 5.0 * y * i] for i in range(8)]

    found = of_ct(ImageOrientationPatient=[1, 0, 0, 0, y, z], each_ImagePositionPatient=steps)

    assert found.axial is across


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [([1, 0, 0, 0, 1, 0], False), ([-1, 0, 0, 0, -1, 0], False), ([0, 1, 0, -1, 0, 0], True)],
    ids=["supine", "prone", "on a side"],
)
def test_a_patient_on_a_side_has_width_and_thickness_exchanged(orientation: list[int], turned: bool) -> None:
    assert of_ct(ImageOrientationPatient=orientation).turned is turned


def test_hounsfield_units_are_doubtful_without_rescaling_and_after_mixing_energies() -> None:
    rescaled = {"RescaleSlope": 1, "RescaleIntercept": -1024, "BitsStored": 12, "PixelRepresentation": 0}

    assert of_ct(**rescaled).is_hu
    assert not of_ct(BitsStored=12, PixelRepresentation=0).is_hu
    assert not of_ct(**rescaled, SeriesDescription="Mono 70 keV").is_hu


@pytest.mark.parametrize(
    ("values", "fact", "expected"),
    [
        ({"ScanOptions": ["FAST_GEMS", "FILTERED_GEMS"]}, "filtered", True),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]}, "filtered", False),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"]}, "filtered", True),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"]}, "normalised", True),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "magnitude", False),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]}, "magnitude", True),
        ({"InPlanePhaseEncodingDirection": "ROW"}, "phase_axis", 1),
        ({"InPlanePhaseEncodingDirection": "COL"}, "phase_axis", 0),
        ({}, "phase_axis", None),
        ({"AcquisitionMatrix": [0, 320, 240, 0]}, "acquired_matrix", (240, 320)),
        ({"AcquisitionMatrix": [256, 0, 0, 192]}, "acquired_matrix", (256, 192)),
        ({"AcquisitionMatrix": [0, 0, 0, 0]}, "acquired_matrix", None),
        ({"MRAcquisitionType": "3D"}, "is_3d", True),
    ],
)
def test_an_mr_header_tells_phase_matrix_and_filters(values: dict[str, object], fact: str, expected: object) -> None:
    assert getattr(of_mr(**values), fact) == expected


def test_factors_of_dose_are_published_for_heads_and_bodies() -> None:
    assert [body_part(region) for region in ("brain", "neck", "abdomen", "extremity", "unknown")] == [
        "head", "body", "body", None, None,
    ]  # fmt: skip
