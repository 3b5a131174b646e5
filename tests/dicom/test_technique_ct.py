"""Effective tube charge from headers that mean different things by the same tag."""

import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from support.header_builders import CT, DATA, DEMO, dataset, multi_frame, raw, series, stored

from mediqa_node.dicom.technique.dose_sr import DoseEvent
from mediqa_node.dicom.technique.harvest import harvest, statistics

ENHANCED_CT, LEGACY_CT = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"
GE_HELICAL = {"Manufacturer": "GE MEDICAL SYSTEMS", "ScanOptions": "HELICAL MODE", "KVP": 120}


@pytest.mark.parametrize(("thickness_mm", "tag_mas"), [(0.625, 2), (1.25, 3), (5.0, 14)])
def test_ge_tube_charge_does_not_depend_on_the_reconstructed_slice_thickness(thickness_mm, tag_mas):
    headers = series(
        **GE_HELICAL, XRayTubeCurrent=300, RevolutionTime=0.5, SpiralPitchFactor=1.375, Exposure=tag_mas,
        ExposureTime=912, SliceThickness=thickness_mm,
    )  # fmt: skip

    technique = harvest(headers)

    assert technique.tube_charge_mas == pytest.approx(109.09, abs=0.01)
    assert (technique.source, technique.mas_definition) == ("ma_rot_pitch", "effective")
    assert "exposure_differs_from_ma_t" in technique.flags
    assert technique.eligible


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("Exposure", b"1,250"),
        ("XRayTubeCurrent", b"1,200"),
        ("XRayTubeCurrent", b"0.2 A "),
        ("ExposureTime", b"0.5 s "),
    ],
)
def test_a_number_that_may_mean_two_things_gives_no_tube_charge(keyword, value):
    technical = {"Exposure": 100} if keyword == "Exposure" else {"XRayTubeCurrent": 200, "ExposureTime": 500}
    headers = series(KVP=120, **technical)
    for header in headers:
        raw(header, keyword, "IS", value)

    technique = harvest(headers)

    assert technique.tube_charge_mas is None
    assert f"unreadable:{keyword}" in technique.flags
    assert not technique.eligible


def test_ge_is_recognised_by_its_private_creator_where_the_manufacturer_was_blanked():
    headers = series(ScanOptions="HELICAL MODE", XRayTubeCurrent=300, Exposure=3, ExposureTime=912)
    for header in headers:
        block = header.private_block(0x0019, "GEMS_ACQU_01", create=True)
        block.add_new(0x27, "DS", "500")
        header.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x27, "SH", "/1.375:1")

    technique = harvest(headers)

    assert technique.tube_charge_mas == pytest.approx(109.09, abs=0.01)
    assert technique.frames[0].candidates["rotation_s"] == 0.5


def test_pydicoms_ge_helical_image_gives_rotation_over_pitch_from_private_elements():
    technique = harvest([pydicom.dcmread(get_testdata_file("CT_small.dcm"), stop_before_pixels=True)])

    assert technique.tube_charge_mas == pytest.approx(170)
    assert technique.source == "ma_rot_pitch"
    assert technique.frames[0].candidates["ma_t_mas"] == pytest.approx(272.17)


def test_an_axial_tag_that_contradicts_ma_t_gives_way_to_it():
    technique = harvest([pydicom.dcmread(get_testdata_file("693_J2KI.dcm"), stop_before_pixels=True)])

    assert technique.tube_charge_mas == pytest.approx(340)
    assert technique.source == "ma_t"
    assert "exposure_differs_from_ma_t" in technique.flags
    assert "review" in {exclusion.code for exclusion in technique.exclusions}


def test_a_cine_image_counts_one_rotation():
    headers = series(
        Manufacturer="GE", ScanOptions="CINE MODE", XRayTubeCurrent=100, ExposureTime=40_000, RevolutionTime=1.0
    )

    technique = harvest(headers)

    assert technique.tube_charge_mas == 100
    assert "cine" in technique.flags


def test_siemens_spiral_takes_the_tag_as_effective_mas():
    technique = harvest(stored(DEMO))

    assert technique.tube_charge_mas == pytest.approx(86.5)
    assert (technique.source, technique.mas_definition) == ("exposure", "effective")
    assert technique.eligible


def test_arithmetic_tells_a_canon_tag_per_rotation_from_an_effective_one():
    canon = {"Manufacturer": "TOSHIBA", "AcquisitionType": "SPIRAL", "XRayTubeCurrent": 123, "RevolutionTime": 0.35}

    per_rotation = harvest(series(**canon, SpiralPitchFactor=1.388, Exposure=43))
    effective = harvest(series(**canon, SpiralPitchFactor=1.388, Exposure=31))

    assert per_rotation.mas_definition == "per_rotation"
    assert "not_divided_by_pitch" in per_rotation.flags
    assert effective.mas_definition == "effective"


def test_the_finer_tag_is_taken_where_it_agrees_with_the_coarse_one():
    agreeing = harvest(series(Manufacturer="Philips", ScanOptions="HELIX", Exposure=42, ExposureInuAs=42_400))
    disagreeing = harvest(series(Manufacturer="Philips", ScanOptions="HELIX", Exposure=42, ExposureInuAs=50_000))

    assert (agreeing.tube_charge_mas, agreeing.source) == (pytest.approx(42.4), "exposure_uas")
    assert (disagreeing.tube_charge_mas, disagreeing.source) == (42.0, "exposure")


def test_current_and_time_stand_in_for_an_absent_tag():
    technique = harvest(series(Manufacturer="Philips", XRayTubeCurrent=200, ExposureTime=500))

    assert (technique.tube_charge_mas, technique.source) == (100.0, "ma_t")


def test_current_in_microampere_and_time_in_microseconds_are_understood():
    technique = harvest(series(Manufacturer="Philips", XRayTubeCurrentInuA=200_000, ExposureTimeInuS=500_000))

    assert technique.tube_charge_mas == pytest.approx(100.0)


@pytest.mark.parametrize("power", [24, 24_000])
def test_generator_power_in_kw_or_w_stands_in_for_the_current_and_is_flagged(power):
    technique = harvest(series(Manufacturer="Philips", GeneratorPower=power, KVP=120, ExposureTime=500))

    assert technique.tube_charge_mas == pytest.approx(100.0)
    assert "current_from_generator_power" in technique.flags


def test_enhanced_ct_reads_shared_and_per_frame_exposure():
    shared = dataset(
        CTAcquisitionTypeSequence=dataset(AcquisitionType="SPIRAL"),
        CTExposureSequence=dataset(ExposureInmAs=80.0),
        PixelMeasuresSequence=dataset(PixelSpacing=[0.7, 0.7], SliceThickness=2.0),
    )
    frames = [dataset(CTExposureSequence=dataset(ExposureInmAs=100.0 + i, CTDIvol=9.0)) for i in range(7)]

    technique = harvest([multi_frame(ENHANCED_CT, shared, [*frames, Dataset()], ImageType=["ORIGINAL", "PRIMARY"])])

    assert [frame.tube_charge_mas for frame in technique.frames] == [100, 101, 102, 103, 104, 105, 106, 80]
    assert technique.tube_charge_mas == 102.5
    assert (technique.source, technique.mas_definition) == ("fg_exposure", "effective")
    assert technique.frames[0].ctdi_vol_mgy == 9.0
    assert technique.covariates["slice_thickness_mm"] == 2.0
    assert technique.eligible


def test_enhanced_ct_without_exposure_multiplies_current_and_time():
    exposure = dataset(XRayTubeCurrentInmA=200.0, ExposureTimeInms=400.0)
    header = multi_frame(ENHANCED_CT, dataset(CTExposureSequence=exposure), [Dataset() for _ in range(7)])

    technique = harvest([header])

    assert (technique.tube_charge_mas, technique.source) == (pytest.approx(80.0), "fg_ma_ms")


def test_a_legacy_converted_object_keeps_its_classic_values():
    frames = [dataset(UnassignedPerFrameConvertedAttributesSequence=dataset(Exposure=90 + index)) for index in range(7)]

    technique = harvest([multi_frame(LEGACY_CT, Dataset(), frames, Manufacturer="SIEMENS")])

    assert technique.tube_charge_mas == 93
    assert technique.source == "exposure"


def second_tube(kvp: float) -> Dataset:
    return dataset(KVP=kvp, XRayTubeCurrentInmA=150.0, ExposureInmAs=40.0)


def test_a_second_tube_at_the_same_voltage_adds_its_charge():
    technique = harvest(
        series(
            Manufacturer="SIEMENS", AcquisitionType="SPIRAL", KVP=100, Exposure=60,
            CTAdditionalXRaySourceSequence=second_tube(100),
        )
    )  # fmt: skip

    assert technique.tube_charge_mas == 100
    assert technique.frames[0].candidates["additional_source_1_mas"] == 40
    assert "dual_source_added" in technique.flags
    assert technique.eligible


def test_a_second_tube_at_another_voltage_is_kept_apart_and_the_label_is_not_trained_on():
    technique = harvest(
        series(
            Manufacturer="SIEMENS", AcquisitionType="SPIRAL", KVP=80, Exposure=60,
            CTAdditionalXRaySourceSequence=second_tube(140),
        )
    )  # fmt: skip

    assert technique.tube_charge_mas == 60
    assert "dual_source_not_added" in technique.flags
    assert not technique.eligible


def energy(kvp: float) -> Dataset:
    return dataset(
        CTExposureSequence=dataset(ExposureInmAs=70.0, XRayTubeCurrentInmA=140.0),
        CTXRayDetailsSequence=dataset(KVP=kvp),
    )


def test_multi_energy_images_with_different_voltages_have_no_label_but_keep_their_candidates():
    technique = harvest(
        series(MultienergyCTAcquisition="YES", MultienergyCTAcquisitionSequence=[energy(80), energy(140)])
    )

    assert technique.tube_charge_mas is None
    assert technique.frames[0].candidates["multi_energy_2_kvp"] == 140
    assert {exclusion.code for exclusion in technique.exclusions} == {"missing_label"}


def test_one_energy_of_a_photon_counting_scanner_is_read_from_its_sequence():
    technique = harvest(series(MultienergyCTAcquisition="YES", MultienergyCTAcquisitionSequence=energy(120)))

    assert technique.tube_charge_mas == 70


def test_the_label_of_a_modulated_scan_is_the_median_and_all_aggregates_are_kept():
    current_ma = [100, 100, 100, 100, 200, 400, 800, 800]

    technique = harvest(
        series(
            Manufacturer="SIEMENS", AcquisitionType="SPIRAL", each_Exposure=current_ma, ExposureModulationType="XYZ_EC"
        )
    )

    numbers = technique.statistics
    assert technique.tube_charge_mas == 150
    assert numbers["mean"] == 325
    assert numbers["hmean"] == pytest.approx(8 / sum(1 / x for x in current_ma))
    assert (numbers["min"], numbers["max"], numbers["n"], numbers["n_valid"]) == (100, 800, 8, 8)
    assert numbers["central_mean"] == pytest.approx((100 + 100 + 200 + 400) / 4)
    assert "per_series_value" not in technique.flags
    assert [frame.z_mm for frame in technique.frames] == [0, 5, 10, 15, 20, 25, 30, 35]


def test_one_value_for_all_slices_of_a_modulated_scan_is_flagged():
    modulated = harvest(series(Manufacturer="SIEMENS", Exposure=100, ExposureModulationType="XYZ_EC"))
    fixed = harvest(series(Manufacturer="SIEMENS", Exposure=100, ExposureModulationType="NONE"))

    assert "per_series_value" in modulated.flags
    assert "per_series_value" not in fixed.flags


@pytest.mark.parametrize(("missing", "label"), [(2, 100.0), (3, None)])
def test_a_label_needs_four_fifths_of_the_slices(missing, label):
    technique = harvest(series(n=10, Manufacturer="SIEMENS", each_Exposure=[100] * (10 - missing) + [0] * missing))

    assert technique.tube_charge_mas == label
    assert technique.statistics["n_valid"] == 10 - missing


def test_statistics_of_nothing_are_counts_alone():
    assert statistics([None, None]) == {"n": 2.0, "n_valid": 0.0}


def test_a_scout_of_263_mas_is_no_label():
    headers = series(n=1, Manufacturer="GE", SliceThickness=650, Exposure=263, XRayTubeCurrent=10, ExposureTime=2070)

    technique = harvest(headers)

    assert technique.tube_charge_mas is None
    assert technique.source == "excluded:localizer"
    assert technique.refusal is not None


def test_a_scout_among_slices_does_not_move_the_median():
    slices = series(n=9, Manufacturer="SIEMENS", each_Exposure=[100] * 8 + [900], each_SliceThickness=[5] * 8 + [600])

    technique = harvest(slices)

    assert technique.tube_charge_mas == 100
    assert technique.statistics["n"] == 8
    assert technique.refusal is None
    assert not technique.eligible


def twice(**values):
    """Eight positions with two images each; the second of each pair was acquired later."""
    times = ["100000", "100010"] * 8
    positions = [[0, 0, 5.0 * (k // 2)] for k in range(16)]
    return series(
        n=16, each_AcquisitionTime=times, each_ImagePositionPatient=positions, ScanOptions="HELICAL", **values
    )


def codes(technique):
    return {exclusion.code for exclusion in technique.exclusions}


@pytest.mark.parametrize("mas", [[300, 100] * 8, [100, 300] * 8])
def test_two_voltages_at_the_same_positions_give_the_label_of_the_stack_that_is_exported(mas):
    technique = harvest(twice(each_KVP=[80, 140] * 8, each_Exposure=mas))

    assert technique.tube_charge_mas in (100, 300)
    assert {frame.tube_charge_mas for frame in technique.frames} == {technique.tube_charge_mas}
    assert technique.statistics["n"] == 8
    assert (technique.eligible, codes(technique)) == (False, {"several_techniques"})


def test_images_that_were_dropped_at_a_repeated_position_do_not_move_the_label():
    technique = harvest(twice(KVP=120, each_Exposure=[100, 300] * 8))

    assert technique.tube_charge_mas == 100
    assert (technique.eligible, codes(technique)) == (False, {"several_techniques"})


@pytest.mark.parametrize(
    "values",
    [
        {"each_ConvolutionKernel": ["B30f", "B70f"] * 8, "Exposure": 100},
        {"each_NominalPercentageOfCardiacPhase": [40.0, 70.0] * 8, "Exposure": 100},
        {"each_Exposure": [100, 103] * 8},
        {"Exposure": 100},
    ],
)
def test_a_label_on_which_all_stacks_agree_is_eligible(values):
    technique = harvest(twice(KVP=120, **values))

    assert technique.tube_charge_mas == 100
    assert (technique.eligible, codes(technique)) == (True, set())


def test_one_repeated_slice_of_a_modulated_scan_is_compared_with_the_slice_it_repeats():
    positions = [[0, 0, 5.0 * k] for k in range(10)] + [[0, 0, 5.0]]
    mas = [100 + 40 * k for k in range(10)] + [140]

    technique = harvest(series(n=11, each_ImagePositionPatient=positions, each_Exposure=mas, ScanOptions="HELICAL"))

    assert (technique.eligible, technique.statistics["n"]) == (True, 10)


@pytest.mark.parametrize(
    ("mas", "trains"),
    [
        ([100] * 5 + [300] * 5, False),
        ([50, 300] * 5, False),
        ([100, 101] * 5, True),
        ([100 + 10 * k for k in range(10)], True),
        ([100] * 9 + [300], True),
    ],
    ids=["two runs", "in turn", "rounded", "modulated", "one image"],
)
def test_two_constant_tube_charges_in_one_stack_are_no_label(mas, trains):
    technique = harvest(series(n=10, KVP=120, each_Exposure=mas, ScanOptions="HELICAL"))

    assert (technique.eligible, codes(technique)) == (trains, set() if trains else {"several_techniques"})


def test_a_tube_charge_that_is_given_twice_trains_nothing():
    technique = harvest(series(n=10, KVP=120, Exposure=[100, 200], ScanOptions="HELICAL"))

    assert (technique.eligible, codes(technique)) == (False, {"unverified_label"})


@pytest.mark.parametrize(
    ("missing", "found"),
    [((), set()), ((3,), set()), ((19,), set()), ((3, 19), {"gap"})],
    ids=["none", "in the first", "in the second", "in both"],
)
def test_a_gap_is_one_between_slices_of_the_primary_stack(missing, found):
    volumes = [(volume, k) for volume in (0, 1) for k in range(16) if 16 * volume + k not in missing]
    positions = [[0, 0, 5.0 * k + 0.02 * volume] for volume, k in volumes]
    kernels = [("B30f", "B70f")[volume] for volume, _ in volumes]

    technique = harvest(
        series(n=len(volumes), each_ImagePositionPatient=positions, each_ConvolutionKernel=kernels, Exposure=100)
    )

    assert codes(technique) == found


def test_the_slices_that_are_needed_are_those_of_the_primary_stack():
    parts = [series(n=4, KVP=120, Exposure=100, ScanOptions="HELICAL", Rows=rows) for rows in (512, 256, 128)]
    for number, header in enumerate(header for part in parts for header in part):
        header.SOPInstanceUID = f"1.2.3.{number}"
        header.ImagePositionPatient = [0, 0, 5.0 * number]

    technique = harvest([header for part in parts for header in part])

    assert "too_few_slices" in codes(technique)


def test_several_voltages_in_one_stack_are_no_label():
    technique = harvest(series(Exposure=100, ScanOptions="HELICAL", each_KVP=[80, 80, 80, 80, 140, 140, 140, 140]))

    assert codes(technique) == {"several_techniques"}


def test_a_low_dose_pet_ct_with_a_slice_scaled_tag_is_shown_but_not_trained_on():
    technique = harvest(stored(DATA / "ct_sts003_lowdose"))

    assert (technique.tube_charge_mas, technique.mas_definition) == (10.0, "slice_scaled")
    assert "ge_exposure_unverified" in technique.flags
    assert not technique.eligible


def test_an_exposure_of_3658_beside_78_mas_is_not_believed():
    technique = harvest(stored(DATA / "ct_sts036_lowdose"))

    assert technique.tube_charge_mas == pytest.approx(78.3)
    assert "out_of_range:Exposure" in technique.flags
    assert technique.frames[0].candidates["Exposure"] == 3658
    assert not technique.eligible


def test_a_ge_tag_above_ma_t_is_impossible():
    technique = harvest(series(**GE_HELICAL, Exposure=500, XRayTubeCurrent=100, ExposureTime=1000))

    assert (technique.tube_charge_mas, technique.source) == (100.0, "ma_t")


def test_without_any_exposure_there_is_no_label_but_a_score_may_be_given():
    technique = harvest(series(Manufacturer="GE MEDICAL SYSTEMS"))

    assert technique.tube_charge_mas is None
    assert technique.refusal is None
    assert "missing_label" in {exclusion.code for exclusion in technique.exclusions}


def test_a_dose_report_fills_in_and_contradictions_are_flagged():
    event = DoseEvent(irradiation_event_uid="1.9", tube_current_ma=300, rotation_time_s=0.5, pitch=1.5)

    filled = harvest(series(**GE_HELICAL, Exposure=3, IrradiationEventUID="1.9"), dose_events={"1.9": event})
    contradicted = harvest(
        series(Manufacturer="SIEMENS", Exposure=200, IrradiationEventUID="1.9"), dose_events={"1.9": event}
    )

    assert (filled.tube_charge_mas, filled.source) == (pytest.approx(100), "rdsr")
    assert contradicted.tube_charge_mas == 200
    assert "rdsr_mismatch" in contradicted.flags
    assert not contradicted.eligible


@pytest.mark.parametrize(
    ("kernel", "description", "expected"),
    [
        (["Br40d", "3"], "", "hybrid_ir"),
        (["I31f", "3"], "", "hybrid_ir"),
        ("B70f", "", "fbp"),
        ("STANDARD", "Chest ASIR 40", "hybrid_ir"),
        ("FC17", "Body AiCE", "dlr"),
        ("A", "IMR 2", "mbir"),
        ("A", "Chest", "unknown"),
    ],
)
def test_the_reconstruction_is_told_by_kernel_or_name(kernel, description, expected):
    technique = harvest(series(CT, ConvolutionKernel=kernel, SeriesDescription=description, Exposure=100))

    assert technique.covariates["recon_class"] == expected


HEAD_16_CM = ("113690", "DCM", "IEC Head Dosimetry Phantom")
BODY_32_CM = ("113691", "DCM", "IEC Body Dosimetry Phantom")


def dosed(code: tuple[str, str, str] | None, **values: object) -> dict[str, object]:
    """The covariates of a series with a dose of 10 mGy, a patient of 30 cm and a phantom by its code."""
    stated: dict[str, object] = {"Exposure": 100, "CTDIvol": 10.0, "WaterEquivalentDiameter": 300.0}
    if code is not None:
        value, scheme, meaning = code
        item = dataset(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)
        stated["CTDIPhantomTypeCodeSequence"] = item
    return dict(harvest(series(**(stated | values))).covariates)


@pytest.mark.parametrize(
    ("code", "body_part", "diameter_cm", "ssde_mgy"),
    [
        (BODY_32_CM, "ABDOMEN", 32, 12.31),
        (BODY_32_CM, "", 32, 12.31),
        (HEAD_16_CM, "CHEST", 16, 5.87),
        (HEAD_16_CM, "HEAD", 16, None),
        (BODY_32_CM, "BRAIN", 32, None),
        (HEAD_16_CM, "", 16, None),
        (HEAD_16_CM, "HEADNECK", 16, None),
        (("113692", "DCM", "NEMA XR21-2000 Phantom"), "ABDOMEN", None, None),
        (("113692", "DCM", "IEC Body Dosimetry Phantom"), "ABDOMEN", None, None),
        (("113690", "DCM", "IEC Body Dosimetry Phantom"), "CHEST", 16, 5.87),
        (("1", "99X", "IEC Body Dosimetry Phantom"), "ABDOMEN", 32, 12.31),
        (("1", "99X", "IEC 32 cm"), "ABDOMEN", 32, 12.31),
        (("1", "99X", "32 cm"), "ABDOMEN", None, None),
        (("1", "99X", "Head"), "CHEST", None, None),
        (("113691", "99X", "something"), "ABDOMEN", None, None),
        (None, "ABDOMEN", None, None),
    ],
)
def test_the_phantom_is_told_by_its_code_and_decides_about_ssde(code, body_part, diameter_cm, ssde_mgy):
    found = dosed(code, BodyPartExamined=body_part)

    assert found["ctdi_phantom_cm"] == diameter_cm
    assert found["ssde_mgy"] == (None if ssde_mgy is None else pytest.approx(ssde_mgy, abs=0.01))


def test_no_ssde_is_given_beyond_the_sizes_of_the_tables():
    assert dosed(BODY_32_CM, WaterEquivalentDiameter=460.0)["ssde_mgy"] is None
    assert dosed(BODY_32_CM, WaterEquivalentDiameter=79.0)["ssde_mgy"] is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({}, (8.0, 32, True)),
        ({"CTDIvol": 9.0}, (9.0, 32, False)),
        ({"CTDIvol": 16.0}, (16.0, None, False)),
        ({"CTDIvol": 9.0, "CTDIPhantomTypeCodeSequence": HEAD_16_CM}, (9.0, 16, False)),
    ],
)
def test_a_dose_report_fills_in_ctdi_vol_with_its_phantom(header, expected):
    if code := header.get("CTDIPhantomTypeCodeSequence"):
        value, scheme, meaning = code
        item = dataset(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)
        header = header | {"CTDIPhantomTypeCodeSequence": item}
    event = DoseEvent(irradiation_event_uid="1.9", ctdi_vol_mgy=8.0, ctdi_phantom_cm=32)

    found = harvest(series(Exposure=100, IrradiationEventUID="1.9", **header), dose_events={"1.9": event})

    stated = found.covariates["ctdi_vol_mgy"], found.covariates["ctdi_phantom_cm"]
    assert (*stated, "ctdi_vol_from_report" in found.flags) == expected
    assert found.frames[0].ctdi_vol_mgy == expected[0]


def coded(value: str) -> Dataset:
    return dataset(CodeValue=value, CodingSchemeDesignator="DCM", CodeMeaning="phantom")


def test_the_phantom_of_a_report_counts_where_the_whole_stack_has_its_dose():
    """The dose of a single slice follows its tube current; a first slice far from the mean says nothing."""
    doses = [5.0, 6.0, 8.0, 9.0, 10.0, 10.0, 10.0, 10.0]
    headers = series(KVP=120, Exposure=100, IrradiationEventUID="1.9", each_CTDIvol=doses)
    event = DoseEvent(irradiation_event_uid="1.9", ctdi_vol_mgy=8.5, ctdi_phantom_cm=32)
    other = DoseEvent(irradiation_event_uid="1.9", ctdi_vol_mgy=17.0, ctdi_phantom_cm=16)

    assert harvest(headers, dose_events={"1.9": event}).covariates["ctdi_phantom_cm"] == 32
    assert harvest(headers, dose_events={"1.9": other}).covariates["ctdi_phantom_cm"] is None


def test_images_that_name_different_phantoms_have_none():
    codes = [coded("113691")] * 5 + [coded("113690")] * 3
    headers = series(KVP=120, Exposure=100, CTDIvol=8.5, each_CTDIPhantomTypeCodeSequence=codes)

    assert harvest(headers).covariates["ctdi_phantom_cm"] is None
