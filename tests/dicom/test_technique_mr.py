"""Field strength in every unit that was met, and what else decides SNR."""

import pydicom
import pytest
from pydicom.data import get_testdata_file
from support.header_builders import DATA, MR, OP, series, stored

from mediqa_node.dicom.technique.harvest import harvest
from mediqa_node.dicom.technique.mr import NOMINAL_T, field_strength, nominal


@pytest.mark.parametrize(
    ("tag", "frequency_mhz", "nominal_t", "flag"),
    [
        (1.5, None, 1.5, None),
        (1.49399, None, 1.5, None),
        (15000, None, 1.5, "unit_gauss"),
        (15000, 63.875044, 1.5, "unit_gauss"),
        (1494, None, 1.5, "unit_millitesla"),
        (1500, None, 1.5, "unit_millitesla"),
        (30000, 127.7, 3.0, "unit_gauss"),
        (3000, None, None, "ambiguous_unit"),
        (3000, 127.7, 3.0, "unit_millitesla"),
        (5000, None, None, "ambiguous_unit"),
        (5000, 21.3, 0.5, "unit_gauss"),
        (10000, None, None, "ambiguous_unit"),
        (None, 123.2, 3.0, None),
        (1.5, 123.2, 3.0, "field_vs_freq_mismatch"),
        (None, 63.924, 1.5, None),
        (15, 63.87, 1.5, "unit_kilogauss"),
        (None, 63_870_000, 1.5, None),
        (0.35, None, 0.35, None),
        (7, 297.2, 7.0, None),
        (None, None, None, None),
        (1e9, None, None, "out_of_range:MagneticFieldStrength"),
    ],
)
def test_the_field_is_understood_in_whatever_unit_it_was_written(tag, frequency_mhz, nominal_t, flag):
    field = field_strength(tag, frequency_mhz)

    assert field.nominal_t == nominal_t
    assert field.flags == ((flag,) if flag else ())


@pytest.mark.parametrize(
    ("nucleus", "frequency_mhz"), [("1H", 127.73), ("H1", 127.73), ("31P", 51.7), ("23Na", 33.79), ("^129^Xe", 35.33)]
)
def test_the_frequency_is_read_with_the_nucleus_it_belongs_to(nucleus, frequency_mhz):
    assert field_strength(None, frequency_mhz, nucleus).nominal_t == 3.0


def test_every_magnet_snaps_to_itself_and_numbers_between_magnets_to_none():
    assert [nominal(t) for t in NOMINAL_T] == list(NOMINAL_T)
    assert nominal(2.5) is None
    assert nominal(15.0) is None


def test_gauss_in_a_real_breast_series_become_one_and_a_half_tesla():
    technique = harvest(stored(DATA / "mr_breast_ucsf06"))

    assert technique.field_strength_t == 1.5
    assert technique.source == "tesla_tag"
    assert "unit_gauss" in technique.flags
    assert technique.frames[0].candidates["MagneticFieldStrength"] == 15000
    assert technique.eligible


def test_an_enhanced_object_gives_timing_from_its_functional_groups():
    technique = harvest(stored(DATA / "mr_brain_t1_xa30_enhanced"))

    assert technique.field_strength_t == 3.0
    assert technique.covariates["echo_time_ms"] == pytest.approx(2.41)
    assert technique.covariates["coil"] == "HeadNeck_64"
    assert technique.covariates["pixel_bandwidth_hz"] == 150
    assert len(technique.frames) == 96
    assert technique.frames[0].candidates["ImagingFrequency"] == pytest.approx(123.262, abs=0.001)


def test_without_a_tag_the_resonance_frequency_tells():
    technique = harvest([pydicom.dcmread(get_testdata_file("MR_small.dcm"), stop_before_pixels=True)])

    assert technique.field_strength_t == 1.5
    assert technique.source == "imaging_frequency"


def test_an_image_without_field_and_frequency_has_no_label_and_may_be_scored():
    technique = harvest(series(MR, n=8))

    assert technique.field_strength_t is None
    assert technique.refusal is None
    assert not technique.eligible


def test_a_field_that_is_no_magnets_is_no_label():
    technique = harvest(series(MR, MagneticFieldStrength=2.5))

    assert technique.field_strength_t is None
    assert "no_nominal_field" in technique.flags
    assert technique.covariates["field_strength_t"] == 2.5


def test_two_magnets_in_one_series_are_not_trained_on():
    technique = harvest(series(MR, n=9, each_MagneticFieldStrength=[1.5] * 8 + [3.0]))

    assert technique.field_strength_t == 1.5
    assert not technique.eligible


def test_the_voxel_is_that_of_thickness_and_the_acquired_one_that_of_the_matrix():
    technique = harvest(series(MR, MagneticFieldStrength=3, AcquisitionMatrix=[0, 32, 32, 0]))

    assert technique.covariates["voxel_volume_mm3"] == pytest.approx(0.5 * 0.5 * 5)
    assert technique.covariates["acquired_voxel_volume_mm3"] == pytest.approx(1 * 1 * 5)


def test_a_fundus_photograph_has_covariates_and_no_label():
    technique = harvest(series(OP, n=1, HorizontalFieldOfView=45.0, PupilDilated="YES"))

    assert technique.label_name is None
    assert technique.refusal is None
    assert technique.covariates["horizontal_field_of_view_deg"] == 45
    assert technique.covariates["pupil_dilated"] == "YES"
    assert "stage2_only" in {exclusion.code for exclusion in technique.exclusions}


def test_two_field_strengths_at_the_same_positions_give_no_eligible_label():
    positions = [[0, 0, 5.0 * (k // 2)] for k in range(16)]
    values = {"each_ImagePositionPatient": positions, "each_AcquisitionTime": ["100000", "100010"] * 8}

    technique = harvest(series(MR, n=16, each_MagneticFieldStrength=[1.5, 3.0] * 8, **values))

    assert technique.field_strength_t == 1.5
    assert [exclusion.code for exclusion in technique.exclusions] == ["several_techniques"]


def test_a_field_strength_that_is_given_twice_trains_nothing():
    technique = harvest(series(MR, MagneticFieldStrength=[1.5, 3]))

    assert [exclusion.code for exclusion in technique.exclusions] == ["unverified_label"]


def test_the_echoes_of_one_scan_share_its_label():
    positions = [[0, 0, 5.0 * (k // 2)] for k in range(16)]

    technique = harvest(
        series(MR, n=16, each_ImagePositionPatient=positions, each_EchoTime=[20, 80] * 8, MagneticFieldStrength=3)
    )

    assert (technique.eligible, technique.field_strength_t, technique.statistics["n"]) == (True, 3.0, 8)
