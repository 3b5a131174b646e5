"""Planes in the patient: normals, positions, spacing, tilt."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediqa_node.dicom.stacks.geometry import position_along, shear_deg, slice_normal, slice_spacing, spacing_flags
from mediqa_node.domain.errors import InconsistentGeometry

AXIAL = (1, 0, 0, 0, 1, 0)


def test_the_normal_of_an_axial_plane_points_to_the_head():
    assert slice_normal(AXIAL).tolist() == [0, 0, 1]


def test_the_normal_of_a_sagittal_plane_is_row_times_column():
    assert slice_normal((0, 1, 0, 0, 0, -1)).tolist() == [-1, 0, 0]


@given(st.floats(-3.1, 3.1), st.floats(-3.1, 3.1))
def test_the_normal_is_of_unit_length_and_perpendicular_to_both_vectors(about_x, about_z):
    turn_x = np.array([[1, 0, 0], [0, np.cos(about_x), -np.sin(about_x)], [0, np.sin(about_x), np.cos(about_x)]])
    turn_z = np.array([[np.cos(about_z), -np.sin(about_z), 0], [np.sin(about_z), np.cos(about_z), 0], [0, 0, 1]])
    row, column = (turn_z @ turn_x).T[:2]

    normal = slice_normal((*row, *column))

    assert np.linalg.norm(normal) == pytest.approx(1)
    assert normal @ row == pytest.approx(0, abs=1e-9)
    assert normal @ column == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "cosines",
    [(0, 0, 0, 0, 0, 0), (1, 0, 0, 1, 0, 0), (2, 0, 0, 0, 1, 0), (1, 0, 0), (float("nan"), 0, 0, 0, 1, 0)],
)
def test_cosines_that_are_no_plane_are_refused(cosines):
    with pytest.raises(InconsistentGeometry, match="0020,0037"):
        slice_normal(cosines)


def test_a_position_is_the_distance_of_the_origin_along_the_normal():
    assert position_along(slice_normal(AXIAL), (-120.0, 35.0, 42.5)) == 42.5


def test_even_steps_raise_no_flag():
    assert spacing_flags([0, 5, 10, 15.01]) == ()
    assert slice_spacing([0, 5, 10, 15.01]) == 5


def test_a_missing_slice_is_a_gap_and_not_uneven():
    assert spacing_flags([0, 5, 10, 20, 25]) == ("gap",)


def test_a_step_that_is_a_tenth_too_long_is_uneven_and_no_gap():
    assert spacing_flags([0, 5, 10, 15.5, 20.5]) == ("uneven_spacing",)


def test_a_single_position_has_no_spacing():
    assert slice_spacing([3.0]) == 0.0
    assert spacing_flags([3.0]) == ()


def test_planes_moved_along_the_table_are_sheared_by_the_tilt():
    tilt = np.radians(18.5)
    normal = slice_normal((1, 0, 0, 0, np.cos(tilt), -np.sin(tilt)))

    assert shear_deg(normal, (0, 0, 0), (0, 0, 100)) == pytest.approx(18.5)
    assert shear_deg(normal, (0, 0, 0), 100 * normal) == pytest.approx(0)
    assert shear_deg(normal, (1, 2, 3), (1, 2, 3)) == 0
