"""An image that calls itself an original MPR is refused or not by its geometry; a derived one always."""

import numpy as np
import pytest
from pydicom import Dataset
from support.header_builders import CT, MR, dataset, multi_frame, series

from mediqa_node.dicom.exclusions import exclusions

ORIGINAL, DERIVED = ["ORIGINAL", "PRIMARY", "MPR"], ["DERIVED", "SECONDARY", "MPR"]
CORONAL = [1, 0, 0, 0, 0, -1]


def refused(headers: list[Dataset]) -> set[str]:
    return {exclusion.code for exclusion in exclusions(headers) if not exclusion.scorable}


def tilted(degrees: float, step: list[float], n: int = 8) -> list[Dataset]:
    """Slices tilted about the patient's first axis, each displaced by `step` from the one before, mm."""
    angle = np.radians(degrees)
    orientation = [1, 0, 0, 0, float(np.cos(angle)), float(np.sin(angle))]
    positions = [(np.array(step) * index).tolist() for index in range(n)]
    return series(CT, n=n, ImageType=ORIGINAL, ImageOrientationPatient=orientation, each_ImagePositionPatient=positions)


@pytest.mark.parametrize("sop_class", [CT, MR])
def test_axial_slices_of_one_acquisition_are_scored_though_they_call_themselves_mpr(sop_class):
    assert refused(series(sop_class, ImageType=ORIGINAL, AcquisitionNumber=3)) == set()
    assert refused(series(sop_class, ImageType=[*ORIGINAL, "CT_SOM5 MPR"])) == set()


@pytest.mark.parametrize("kind", [DERIVED, ["DERIVED", "PRIMARY", "MPR"], ["ORIGINAL", "SECONDARY", "MPR"]])
def test_a_derived_mpr_is_refused_whatever_its_geometry(kind):
    assert refused(series(CT, ImageType=kind)) == {"reformat"}


@pytest.mark.parametrize("kind", ["MIP", "MPR_THICK", "PROJECTION IMAGE", "CURVED_MPR"])
def test_geometry_excuses_no_other_reformat(kind):
    assert refused(series(CT, ImageType=["ORIGINAL", "PRIMARY", kind])) == {"reformat"}
    assert refused(series(CT, ImageType=[*ORIGINAL, kind])) == {"reformat"}


def test_coronal_slices_are_a_reformat_in_ct_and_an_acquisition_in_mr():
    values = {
        "ImageType": ORIGINAL,
        "ImageOrientationPatient": CORONAL,
        "each_ImagePositionPatient": [[0, 5.0 * index, 0] for index in range(8)],
    }

    assert refused(series(CT, **values)) == {"reformat"}
    assert refused(series(MR, **values)) == set()


def test_a_tilted_gantry_displaces_slices_along_the_table_and_a_reformat_along_its_normal():
    normal = [0, -5 * float(np.sin(np.radians(15))), 5 * float(np.cos(np.radians(15)))]

    assert refused(tilted(15, [0, 0, 5])) == set()
    assert refused(tilted(15, normal)) == {"reformat"}
    assert refused(tilted(40, [0, 0, 5])) == {"reformat"}


@pytest.mark.parametrize(
    "values",
    [
        {"n": 6},
        {"each_AcquisitionNumber": [1, 1, 1, 1, 2, 2, 2, 2]},
        {"each_FrameOfReferenceUID": ["1.2.3", *["1.2.4"] * 7]},
        {"each_ImagePositionPatient": [[0, 0, z] for z in (0, 5, 10, 15, 20, 25, 30, 50)]},
        {"each_ImagePositionPatient": [[0, 0, z] for z in (0, 5, 10, 15, 20, 25, 30, 30)]},
        {"each_ImagePositionPatient": [[x, 0, 5.0 * index] for index, x in enumerate((0, 9, 0, 9, 0, 9, 0, 9))]},
        {"each_PixelSpacing": [[0.5, 0.5]] * 7 + [[0.7, 0.7]]},
        {"ImageOrientationPatient": [0.8, 0.6, 0, -0.6, 0.8, 0]},
        {"ImageOrientationPatient": ""},
    ],
)
def test_irregular_slices_are_a_reformat(values):
    assert "reformat" in refused(series(CT, **{"ImageType": ORIGINAL, **values}))


def test_the_frames_of_an_enhanced_object_are_judged_alike():
    def enhanced(orientation: list[float]) -> Dataset:
        shared = dataset(CTImageFrameTypeSequence=dataset(FrameType=[*ORIGINAL, "NONE"]))
        header = multi_frame(
            "1.2.840.10008.5.1.4.1.1.2.1", shared, [Dataset() for _ in range(8)], ImageType=[*ORIGINAL, "NONE"]
        )
        header.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = orientation
        return header

    assert refused([enhanced([1, 0, 0, 0, 1, 0])]) == set()
    assert refused([enhanced(CORONAL)]) == {"reformat"}
