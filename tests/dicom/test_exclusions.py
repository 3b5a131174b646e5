"""What is not scored, what only does not train, and what must be neither."""

import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from support.header_builders import CT, DATA, DEMO, MR, OP, dataset, multi_frame, raw, series, stored
from support.siblings import before_release

from mediqa_node.dicom.exclusions import exclusions, exclusions_of_each

ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"


def refusals(headers: list[Dataset]) -> set[str]:
    return {exclusion.code for exclusion in exclusions(headers) if not exclusion.scorable}


def warnings(headers: list[Dataset]) -> set[str]:
    return {exclusion.code for exclusion in exclusions(headers) if exclusion.scorable}


@pytest.mark.parametrize(
    "name",
    [
        "FAST LOCALIZER", "T/S/C RF FAST PILOT", "LungBolus", "Survey_MST", "3-Plane Localizer", "3 PL LOC", "SCOUT",
        "AAHScout", "Topogram  0.6  T20f", "Surview", "SmartPrep Series", "PreMonitoring", "TIMING", "CALIBRATION",
        "ASSET cal", "SenseRefScan", "Dose Report", "DOSE_INFO", "Patient Protocol", "Screen Save", "loc_ax",
        "Lokalisator",
    ],
)  # fmt: skip
@pytest.mark.parametrize("sop_class", [CT, MR])
def test_series_that_prepare_or_report_are_refused_by_name(name, sop_class):
    assert refusals(series(sop_class, SeriesDescription=name)) & {"localizer", "document"}


@pytest.mark.parametrize(
    "name",
    [
        "LOW DOSE CHEST", "CHEST ROUTINE PROTOCOL", "Ax DWI ASSET", "BLOCK SPINE", "T1 VELOSE", "SMART mAs",
        "CHEST POST BOLUS", "Topic", "dose modulated abdomen", "t1_fl2d_sag", "T2 TSE",
    ],
)  # fmt: skip
def test_names_that_only_look_like_it_are_scored(name):
    assert refusals(series(CT, SeriesDescription=name)) == set()
    assert refusals(series(MR, SeriesDescription=name)) == set()


@pytest.mark.parametrize("keyword", ["SeriesDescription", *before_release("ProtocolName", "StudyDescription")])
@pytest.mark.parametrize(
    "name",
    [
        "CT SKELETAL SURVEY", "BONE SURVEY LOW DOSE", "TRAUMA SURVEY", "CTA CHEST BOLUS",
        "CT ABD BOLUS TRACKING ARTERIAL", "SHIMADZU", "PILOT STUDY", "PILOT TRIAL ARM B", "CARDIAC TIMING 75%",
        "LOCALIZED SPECTROSCOPY", "NEEDLE LOCALIZATION", "HEAD TRAUMA LOC", "CALCIUM SCORE", "SELF-CALIBRATED GRAPPA",
        "AUTOCALIB T2", "THERAPY MONITORING", "CT LUNG MONITOR 3M", "TOPOGRAPHIC ANATOMY", "SCOUTING TRIP",
        "THREE PLANET", "CHEST REPORT ON DISC", "OUTPATIENT PROTOCOL", "LUNG SCREEN CAP", "LOW DOSE INFOCUS",
        "PRESCREENSHOTS",
    ],
)  # fmt: skip
def test_a_word_in_the_name_of_a_volume_refuses_nothing(name, keyword):
    assert refusals(series(CT, n=7, **{keyword: name})) == set()
    assert refusals(series(MR, n=7, **{keyword: name})) == set()


@pytest.mark.parametrize(
    "name", ["Low Dose Info", "PATIENT PROTOCOL LUNG", "SMARTPREP ABDOMEN 5mm", "LOCALIZER GUIDED BIOPSY"]
)
def test_seven_slices_contradict_what_a_volume_may_be_called_too(name):
    assert refusals(series(CT, n=7, SeriesDescription=name)) == set()


@pytest.mark.parametrize("name", ["CTA SMARTPREP", "SmartPrep Series", "CTA Dose Report", "Patient Protocol Chest"])
def test_documents_and_bolus_tracking_are_recognised_in_company(name):
    repeated = {"each_ImagePositionPatient": [[0, 0, 0]] * 12}
    code = "localizer" if "prep" in name.lower() else "document"

    assert refusals(series(CT, n=12, **repeated, SeriesDescription=name)) == {code}


@pytest.mark.parametrize("name", ["CTA Dose Report", "Patient Protocol Chest"])
def test_twelve_pages_of_a_document_are_no_slices(name):
    assert refusals(series(CT, n=12, ImagePositionPatient=None, SeriesDescription=name)) == {"document"}


@pytest.mark.parametrize(
    "name",
    ["SCOUT", "LOCALIZER", "Survey", "Topogram", "3 PL LOC", "TestBolus", "TIMING", "Dose Report", "COR SSFSE LOC"],
)
def test_twenty_parallel_slices_are_a_volume_whatever_they_are_called(name):
    assert refusals(series(CT, n=20, SeriesDescription=name)) == set()
    assert refusals(series(MR, n=20, SeriesDescription=name)) == set()


@pytest.mark.parametrize(
    "name", ["AAHScout", "AAHead_Scout_32ch", "ASSET calibration", "SENSE Ref Scan", "Calibration Scan"]
)
def test_alignment_and_coil_calibration_scans_are_refused_though_they_are_volumes(name):
    assert refusals(series(MR, n=128, SeriesDescription=name)) == {"localizer"}


AXIAL, SAGITTAL, CORONAL = [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1]
THREE_PLANES = {
    "each_ImageOrientationPatient": [AXIAL] * 5 + [SAGITTAL] * 5 + [CORONAL] * 5,
    "each_ImagePositionPatient": [[5.0 * (k % 5)] * 3 for k in range(15)],
}


def test_a_word_among_others_refuses_where_the_planes_are_those_of_a_localizer():
    seven_each = {"each_ImageOrientationPatient": [AXIAL] * 8 + [SAGITTAL] * 8}

    assert refusals(series(MR, n=16, **seven_each)) == set()
    assert refusals(series(MR, n=16, **seven_each, SeriesDescription="LIVER SURVEY")) == {"localizer"}


def test_a_word_without_other_meaning_refuses_a_few_slices_in_company_too():
    assert refusals(series(CT, SeriesDescription="CTA SCOUT OF THE CHEST")) == {"localizer"}
    assert refusals(series(CT, n=20, SeriesDescription="CTA SCOUT OF THE CHEST")) == set()


def test_one_position_again_and_again_is_bolus_tracking():
    repeated = {"each_ImagePositionPatient": [[0, 0, 0]] * 20}

    assert refusals(series(CT, n=20, **repeated, SeriesDescription="CHEST BOLUS")) == {"localizer"}


def test_a_few_slices_in_three_planes_are_a_localizer_without_any_name():
    assert refusals(series(MR, n=15, **THREE_PLANES)) == {"localizer"}


def test_a_protocol_counts_only_where_it_names_nothing_else_and_the_series_has_no_name():
    assert refusals(series(MR, n=3, ProtocolName="SURVEY")) == {"localizer"}
    assert refusals(series(MR, n=3, ProtocolName="SURVEY", SeriesDescription="T2 TSE")) == set()
    assert refusals(series(MR, n=3, ProtocolName="LIVER SURVEY")) == set()


def test_images_of_another_name_in_a_series_are_left_out_alone():
    names = ["CHEST"] * 8 + ["Dose Report"] * 2
    headers = series(CT, n=10, each_SeriesDescription=names)

    assert warnings(headers) == {"document"}
    assert [bool(found) for found in exclusions_of_each(headers)] == [False] * 8 + [True] * 2


@pytest.mark.parametrize(
    "values",
    [
        {"StudyDescription": "fMRI phantom limb"}, {"StudyDescription": "PHANTOM PAIN"},
        {"ProtocolName": "QCT W/ PHANTOM"}, {"SeriesDescription": "PHANTOMLESS BMD"},
        {"PatientName": "Phantomas^A"}, {"ProtocolName": "QCT SPINE + PHANTOM"},
        {"ProtocolName": "QCT SPINE & PHANTOM"}, {"ProtocolName": "QCT WITH MINDWAYS PHANTOM"},
        {"ProtocolName": "L-SPINE INCL. BONE DENSITY PHANTOM"}, {"ProtocolName": "HIP W/O PHANTOM"},
        {"SeriesDescription": "PHANTOM-LESS BMD"}, {"SeriesDescription": "SPINE, NO PHANTOM"},
        {"SeriesDescription": "DAILY DOSE AQA"},
    ],
)  # fmt: skip
def test_a_word_that_only_contains_phantom_or_names_an_examination_refuses_nothing(values):
    assert refusals(series(MR, **values)) == set()


@pytest.mark.parametrize(
    "name",
    [
        "CHEST WITH IODINE", "ABD IODINE CONTRAST 100ML", "NO IODINE", "ABDOMEN WITHOUT IODINE", "HEAD W/O IODINE",
        "HEAD WO IODINE", "HEAD W/IODINE", "NON IODINE CT", "NON-IODINE", "AFTER IODINE", "POST IODINE", "POST-IODINE",
        "before_iodine", "pre iodine", "IV IODINE", "without  iodine", "IODINE ALLERGY", "IODINE-FREE",
        "ORAL IODINE", "ABD C+ IODINE", "ALLERGIC TO IODINE",
        "POST IODINATED CONTRAST", "CT Iodine-131 staging", "I-131 IODINE THERAPY PLANNING CT", "ABD IODINE 300",
    ],
)  # fmt: skip
def test_iodine_as_contrast_agent_is_no_iodine_map(name):
    assert refusals(series(CT, n=30, SeriesDescription=name)) == set()


@pytest.mark.parametrize(
    "name",
    [
        "Iodine map", "IODINE 5MM", "Iodine(Water)", "AX IODINE OVERLAY", "POST IODINE MAP", "ABD IODINE NO WATER",
        "IODINE WITHOUT CALCIUM", "VNC 1.5", "Virtual non-contrast", "VIRTUAL NON IODINE", "THYROIODINE IODINE DENSITY",
        "IodMap", "Z eff", "electron density",
    ],
)  # fmt: skip
def test_a_material_map_is_refused_whatever_else_its_name_has(name):
    assert refusals(series(CT, n=30, SeriesDescription=name)) == {"map"}


@pytest.mark.parametrize("name", ["t1_vibe_dixon_FA12_W", "T1 VFA FA 5", "FA=15", "fa_30"])
def test_a_flip_angle_is_no_map_of_anisotropy(name):
    kind = ["DERIVED", "PRIMARY", "DIXON", "WATER"]
    assert "map" not in refusals(series(MR, n=30, SeriesDescription=name, ImageType=kind))
    assert "map" in refusals(series(MR, n=30, SeriesDescription="dti FA", ImageType=kind))


@pytest.mark.parametrize("options", ["SCOUT MODE", "CT_SOM5 TOP", ["TOMO", "SURVIEW"]])
def test_a_scan_option_makes_a_localizer_whatever_the_image_type(options):
    assert refusals(series(CT, n=1, ScanOptions=options)) == {"localizer"}


@pytest.mark.parametrize("options", ["HELICAL MODE", "CT_SOM5 SPI", "AXIAL_MODE", "STOP"])
def test_other_scan_options_refuse_nothing(options):
    assert refusals(series(CT, n=30, ScanOptions=options)) == set()


def test_a_ct_protocol_that_mentions_smartprep_does_not_speak_for_its_diagnostic_series():
    headers = series(CT, SeriesDescription="CHEST 2.5 MM", ProtocolName="PE STUDY SMARTPREP")

    assert refusals(headers) == set()


def test_a_philips_pilot_is_told_by_its_protocol_alone():
    headers = series(MR, ImageType=["ORIGINAL", "PRIMARY", "OTHER"], ProtocolName="T/S/C RF FAST PILOT")

    assert refusals(headers) == {"localizer"}


def test_a_slice_of_650_mm_is_a_scout():
    assert refusals(series(CT, n=1, SliceThickness=650)) == {"localizer"}


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "reformat"),
        ({"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE"]}, "reformat"),
        ({"BurnedInAnnotation": "YES"}, "burned_in"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"RescaleType": "MGML"}, "map"),
        ({"AcquisitionType": "CONSTANT_ANGLE"}, "localizer"),
        ({"SeriesDescription": "Iodine map"}, "map"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary_capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}, "secondary_capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67"}, "not_an_image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "not_an_image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "not_an_image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.128"}, "modality"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.5.4"}, "modality"),
        ({"SOPClassUID": "", "Modality": "OT"}, "modality"),
        ({"StudyDescription": "Phantom"}, "phantom"),
        ({"StudyDescription": "TEST WITH WATER PHANTOM"}, "phantom"),
        ({"StudyDescription": "HEAD AND BODY PHANTOM"}, "phantom"),
        ({"ProtocolName": "Daily QA with phantom"}, "phantom"),
        ({"ProtocolName": "10.2 Daily CT QA"}, "phantom"),
        ({"QualityControlSubject": "YES"}, "phantom"),
    ],
)
def test_what_no_quality_score_could_mean_anything_for_is_refused(values, code):
    assert code in refusals(series(CT, **values))


@pytest.mark.parametrize(
    "values",
    [
        {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]},
        {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"]},
        {"ImageType": ["DERIVED", "PRIMARY", "T1 MAP", "T1"]},
        {"ImageType": ["DERIVED", "PRIMARY", "ASL", "RCBF"]},
        {"ImageType": ["DERIVED", "SECONDARY"], "SeriesDescription": "ep2d_diff_FA"},
        {"SeriesDescription": "Apparent Diffusion Coefficient (mm2/s)"},
        {"ComplexImageComponent": "PHASE"},
    ],
)
def test_parameter_maps_and_phase_images_are_refused(values):
    assert refusals(series(MR, **values)) == {"map"}


@pytest.mark.parametrize(
    "values",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "PERFUSION", "NONE", "ND"]},
        {"SeriesDescription": "Ax DWI/ADC"},
        {"ComplexImageComponent": "MAGNITUDE"},
    ],
)
def test_original_magnitude_images_are_no_maps(values):
    assert exclusions(series(MR, **values)) == ()


def test_a_ge_phase_image_is_told_by_its_private_component():
    headers = series(MR)
    for header in headers:
        header.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", 1)

    assert refusals(headers) == {"map"}


@pytest.mark.parametrize("code", ["map", "localizer"])
def test_what_a_legacy_converter_could_not_place_refuses_its_frames(code):
    left = Dataset()
    if code == "map":
        left.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", 1)
    else:
        left.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    frames = [dataset(UnassignedPerFrameConvertedAttributesSequence=left) for _ in range(8)]

    assert code in refusals([multi_frame(ENHANCED_MR, Dataset(), frames, Modality="MR")])


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"VolumetricProperties": "SAMPLED"}, "reformat"),
        ({"VolumeBasedCalculationTechnique": "MAX_IP"}, "reformat"),
        ({"ComplexImageComponent": "IMAGINARY"}, "map"),
        ({"FrameType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, "map"),
    ],
)
def test_enhanced_frames_are_judged_by_their_frame_type_group(values, code):
    shared = dataset(MRImageFrameTypeSequence=dataset(**values))
    header = multi_frame(ENHANCED_MR, shared, [Dataset() for _ in range(8)], Modality="MR")

    assert refusals([header]) == {code}


def test_geometrically_distorted_epi_is_scored():
    shared = dataset(MRImageFrameTypeSequence=dataset(VolumetricProperties="DISTORTED"))

    assert exclusions([multi_frame(ENHANCED_MR, shared, [Dataset() for _ in range(8)], Modality="MR")]) == ()


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"ImageType": ["DERIVED", "SECONDARY"]}, "derived"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "review"),
        ({"LossyImageCompression": "01"}, "lossy"),
        ({"ConversionType": "WSD"}, "converted"),
        ({"SeriesDescription": "Mono 70 keV"}, "multi_energy"),
        ({"n": 6}, "too_few_slices"),
        ({"each_ImagePositionPatient": [[0, 0, z] for z in (0, 5, 10, 15, 30, 35, 40, 45)]}, "gap"),
    ],
)
def test_what_only_spoils_a_training_label_is_still_scored(values, code):
    headers = series(CT, **values)

    assert refusals(headers) == set()
    assert warnings(headers) == {code}


def test_repeated_positions_do_not_count_as_slices():
    headers = series(CT, n=12, each_ImagePositionPatient=[[0, 0, 5 * (index % 6)] for index in range(12)])

    assert warnings(headers) == {"too_few_slices"}


def test_several_orientations_do_not_train_and_are_a_localizer_in_siemens_flash():
    sagittal, axial = [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 1, 0]
    mixed = {"n": 10, "each_ImageOrientationPatient": [axial] * 8 + [sagittal] * 2}

    assert warnings(series(MR, **mixed)) == {"mixed_orientation"}
    assert refusals(series(MR, **mixed, SequenceName="*fl2d1", RepetitionTime=8.6)) == {"localizer"}


def test_a_minority_of_refused_images_spoils_training_only():
    kinds = [["ORIGINAL", "PRIMARY", "AXIAL"]] * 8 + [["ORIGINAL", "PRIMARY", "LOCALIZER"]] * 2
    headers = series(CT, n=10, each_ImageType=kinds)

    assert refusals(headers) == set()
    assert warnings(headers) == {"localizer"}


def test_a_majority_of_refused_images_refuses_the_series():
    kinds = [["ORIGINAL", "PRIMARY", "AXIAL"]] * 2 + [["ORIGINAL", "PRIMARY", "LOCALIZER"]] * 8

    assert refusals(series(CT, n=10, each_ImageType=kinds)) == {"localizer"}


def test_original_diffusion_images_are_scored_and_not_trained_on():
    headers = stored(DATA / "mr_brain_dti_achieva")

    assert refusals(headers) == set()
    assert "diffusion" in warnings(headers)


def test_photographs_of_the_retina_are_for_stage_two_only_however_compressed():
    headers = series(OP, n=1, SamplesPerPixel=3, LossyImageCompression="01", ConversionType="DI")

    assert refusals(headers) == set()
    assert warnings(headers) == {"stage2_only", "lossy", "converted"}


def test_a_series_without_instances_is_refused():
    assert refusals([]) == {"no_images"}


def test_refusals_come_first_and_name_tag_and_value():
    found = exclusions(series(CT, n=2, SliceThickness=650))

    assert [exclusion.scorable for exclusion in found] == [False, True]
    assert "650 mm" in found[0].detail


def test_a_patients_name_never_appears():
    [found] = [e for e in exclusions(series(CT, PatientName="Phantom^Secret")) if e.code == "phantom"]

    assert "Secret" not in found.detail


@pytest.mark.parametrize(
    "folder",
    [
        "ct_body_totalseg_j2k", "ct_sts003_lowdose", "ct_sts036_lowdose", "mr_brain_dti_achieva", "mr_brain_epi_ge750",
        "mr_brain_t1_xa30_enhanced", "mr_breast_ucsf06",
    ],
)  # fmt: skip
def test_real_patient_series_are_scored(folder):
    assert refusals(stored(DATA / folder)) == set()


def test_the_demo_series_has_nothing_against_it():
    assert exclusions(stored(DEMO)) == ()


@pytest.mark.parametrize(
    ("folder", "code"),
    [
        ("mr_adc_toshiba", "map"),
        ("mr_localizer_phantom_ge", "localizer"),
        ("mr_mosaic_siemens_trio", "mosaic"),
        ("mr_phase_map", "map"),
        ("mr_survey_scout", "localizer"),
        ("secondary_capture_rgb", "secondary_capture"),
    ],
)
def test_real_images_that_are_no_scans_are_refused(folder, code):
    assert refusals(stored(DATA / "refuse" / folder)) == {code}


def test_pydicoms_csa_reformat_is_refused():
    assert "reformat" in refusals([pydicom.dcmread(get_testdata_file("examples_overlay.dcm"), stop_before_pixels=True)])


@pytest.mark.parametrize(
    ("keyword", "vr", "written"),
    [
        ("RescaleIntercept", "DS", b"unknown"),
        ("RescaleIntercept", "DS", b"-1024\\0"),
        ("RescaleSlope", "LO", b"1.000,5"),
        ("BitsStored", "LO", b"twelve"),
        ("PixelRepresentation", "CS", b"SIGNED"),
        ("PixelPaddingValue", "US", b"\1\2\3"),
        ("ImagePositionPatient", "DS", b"1\\2"),
        ("ImageOrientationPatient", "DS", b"1\\0\\0\\0\\1\\x"),
    ],
)
def test_an_element_that_pixels_depend_on_is_refused_by_name_if_it_is_unreadable(keyword, vr, written):
    headers = [raw(header, keyword, vr, written) for header in series()]

    [refusal] = [exclusion for exclusion in exclusions(headers) if not exclusion.scorable]

    assert refusal.code == "unreadable"
    assert refusal.detail.startswith(f"{keyword} (")


def test_one_unreadable_image_of_eight_only_keeps_the_series_from_training():
    headers = series()
    raw(headers[3], "RescaleIntercept", "DS", b"unknown")

    assert (refusals(headers), warnings(headers)) == (set(), {"unreadable"})


def test_an_unreadable_value_of_one_frame_is_found():
    good, bad = (dataset(PixelValueTransformationSequence=dataset(RescaleSlope=1)) for _ in range(2))
    raw(bad.PixelValueTransformationSequence[0], "RescaleIntercept", "DS", b"unknown")

    assert "unreadable" in refusals([multi_frame(CT, Dataset(), [good] * 7 + [bad])])


def test_a_decimal_comma_is_no_reason_to_refuse():
    headers = [raw(header, "RescaleIntercept", "DS", b"-1024,0") for header in series()]

    assert (refusals(headers), warnings(headers)) == (set(), set())


def test_an_unreadable_spacing_only_keeps_a_series_from_training():
    headers = [raw(header, "PixelSpacing", "DS", b"fine\\fine") for header in series()]

    assert (refusals(headers), warnings(headers)) == (set(), {"unreadable_spacing"})


def test_a_photograph_needs_no_rescale_and_no_position():
    headers = [raw(header, "RescaleIntercept", "DS", b"unknown") for header in series(OP, n=1)]

    assert refusals(headers) == set()
