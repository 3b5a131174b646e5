"""Irradiation events out of a radiation dose report, by code or by meaning."""

import pytest
from pydicom import Dataset
from support.header_builders import dataset, series

from mediqa_node.dicom.technique.dose_sr import RADIATION_DOSE_SR, DoseEvent, dose_events
from mediqa_node.dicom.technique.harvest import harvest


def name(code: str, meaning: str) -> dict[str, Dataset]:
    return {"ConceptNameCodeSequence": dataset(CodeValue=code, CodingSchemeDesignator="DCM", CodeMeaning=meaning)}


def num(code: str, meaning: str, value: float, unit: str) -> Dataset:
    units = dataset(CodeValue=unit, CodingSchemeDesignator="UCUM", CodeMeaning=unit)
    measured = dataset(NumericValue=value, MeasurementUnitsCodeSequence=units)
    return dataset(ValueType="NUM", MeasuredValueSequence=measured, **name(code, meaning))


def container(code: str, meaning: str, *content: Dataset) -> Dataset:
    return dataset(ValueType="CONTAINER", ContentSequence=list(content), **name(code, meaning))


def source(*content: Dataset) -> Dataset:
    standard = (num("113733", "KVP", 120, "kV"), num("113734", "X-Ray Tube Current", 300, "mA"))
    return container("113831", "CT X-Ray Source Parameters", *standard, *content)


PER_ROTATION = num("113834", "Exposure Time per Rotation", 0.5, "s")


def event(uid: str, *sources: Dataset, pitch: float | None = 1.5, dose: bool = True) -> Dataset:
    pitches = [num("113828", "Pitch Factor", pitch, "{ratio}")] if pitch else []
    phantom = dataset(
        ValueType="CODE",
        ConceptCodeSequence=dataset(CodeValue="113691", CodingSchemeDesignator="DCM", CodeMeaning="IEC Body Phantom"),
        **name("113835", "CTDIw Phantom Type"),
    )
    doses = container(
        "113829", "CT Dose", num("113830", "Mean CTDIvol", 8.5, "mGy"), num("113838", "DLP", 300, "mGy.cm"), phantom
    )
    parameters = container("113822", "CT Acquisition Parameters", *pitches, *sources)
    identity = dataset(ValueType="UIDREF", UID=uid, **name("113769", "Irradiation Event UID"))
    return container("113819", "CT Acquisition", identity, parameters, *([doses] if dose else []))


def report(*events: Dataset) -> Dataset:
    return dataset(SOPClassUID=RADIATION_DOSE_SR, ContentSequence=list(events))


def test_an_event_gives_current_rotation_time_pitch_and_dose():
    [found] = dose_events(report(event("1.9", source(PER_ROTATION))))

    assert found.irradiation_event_uid == "1.9"
    assert (found.tube_current_ma, found.rotation_time_s, found.pitch) == (300, 0.5, 1.5)
    assert (found.ctdi_vol_mgy, found.dlp_mgy_cm, found.ctdi_phantom) == (8.5, 300, "IEC Body Phantom")
    assert (found.ctdi_phantom_code, found.ctdi_phantom_cm) == ("113691", 32)
    assert found.tube_charge_mas == pytest.approx(100)


@pytest.mark.parametrize(
    ("code", "meaning", "diameter_cm"),
    [
        ("113690", "IEC Head Dosimetry Phantom", 16),
        ("113691", "", 32),
        ("113692", "NEMA XR21-2000 Phantom", None),
        ("113692", "IEC 32 cm", None),
        ("0", "IEC Head Dosimetry Phantom", 16),
        ("0", "IEC 16cm", 16),
        ("0", "body", None),
        ("0", "16 or 32 cm IEC", None),
    ],
)
def test_the_phantom_of_a_report_is_told_by_its_code_or_by_a_clear_meaning(code, meaning, diameter_cm):
    one = event("1.9", source())
    [phantom] = [item for item in one.ContentSequence[-1].ContentSequence if item.ValueType == "CODE"]
    phantom.ConceptCodeSequence[0].CodeValue, phantom.ConceptCodeSequence[0].CodeMeaning = code, meaning

    [found] = dose_events(report(one))

    assert (found.ctdi_phantom_code, found.ctdi_phantom_cm) == (code, diameter_cm)


def test_a_right_meaning_under_a_wrong_code_is_understood():
    wrong_code = num("113843", "Exposure Time per Rotation", 0.5, "s")

    [found] = dose_events(report(event("1.9", source(wrong_code))))

    assert found.rotation_time_s == 0.5


def test_a_right_code_under_a_wrong_meaning_is_understood():
    wrong_meaning = num("113834", "Exposure Time", 0.5, "s")

    [found] = dose_events(report(event("1.9", source(wrong_meaning))))

    assert found.rotation_time_s == 0.5


def measured(unit: str, value: float, code: str, meaning: str) -> DoseEvent:
    """The event of a report that states one value in a unit, instead of the usual one."""
    [found] = dose_events(report(event("1.9", container("113831", "Source", num(code, meaning, value, unit)))))
    return found


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [
        ("s", 0.5, 0.5), ("ms", 500, 0.5), ("us", 500_000, 0.5), ("min", 0.01, 0.6), ("msec", 500, 0.5),
        ("sec", 0.5, 0.5), ("S", 0.5, None), ("h", 0.5, None), ("mA", 0.5, None), ("", 0.5, None),
        ("s", 500, None), ("ms", 0.5, None),
    ],
)  # fmt: skip
def test_a_time_is_read_in_the_unit_it_states_or_left_out(unit, value, expected):
    found = measured(unit, value, "113834", "Exposure Time per Rotation")

    assert found.rotation_time_s == (pytest.approx(expected) if expected else None)
    assert bool(found.flags) is (expected is None)


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [
        ("mA", 300, 300), ("uA", 300_000, 300), ("\u00b5A", 300_000, 300), ("A", 0.3, 300), ("kA", 0.0003, 300),
        ("mA.s", 300, None), ("uA.s", 300, None), ("ma", 300, None), ("A", 300, None), ("", 300, None),
    ],
)  # fmt: skip
def test_a_current_is_read_in_the_unit_it_states_or_left_out(unit, value, expected):
    found = measured(unit, value, "113734", "X-Ray Tube Current")

    assert found.tube_current_ma == (pytest.approx(expected) if expected else None)
    assert bool(found.flags) is (expected is None)


@pytest.mark.parametrize(
    ("code", "meaning", "field", "unit", "value", "expected"),
    [
        ("113838", "DLP", "dlp_mgy_cm", "dGy.cm", 3.2, 320),
        ("113838", "DLP", "dlp_mgy_cm", "cGy.cm", 32, 320),
        ("113838", "DLP", "dlp_mgy_cm", "mGycm", 320, 320),
        ("113838", "DLP", "dlp_mgy_cm", "mGy", 320, None),
        ("113838", "DLP", "dlp_mgy_cm", "mGy.m", 3.2, 320),
        ("113838", "DLP", "dlp_mgy_cm", "mGy*cm", 320, 320),
        ("113838", "DLP", "dlp_mgy_cm", "Gy.cm2", 1, None),
        ("113830", "Mean CTDIvol", "ctdi_vol_mgy", "cGy", 0.85, 8.5),
        ("113830", "Mean CTDIvol", "ctdi_vol_mgy", "uGy", 8500, 8.5),
        ("113830", "Mean CTDIvol", "ctdi_vol_mgy", "rad", 1, None),
        ("113736", "Exposure", "exposure_mas", "uA.s", 150_000, 150),
        ("113736", "Exposure", "exposure_mas", "mAs", 150, 150),
        ("113736", "Exposure", "exposure_mas", "A.s", 0.15, 150),
        ("113736", "Exposure", "exposure_mas", "mA", 150, None),
        ("113733", "KVP", "kvp_kv", "V", 120_000, 120),
        ("113733", "KVP", "kvp_kv", "kVp", 120, 120),
        ("113733", "KVP", "kvp_kv", "KV", 120, 120),
        ("113827", "Nominal Total Collimation Width", "total_collimation_mm", "cm", 4, 40),
        ("113828", "Pitch Factor", "pitch", "%", 150, 1.5),
        ("113828", "Pitch Factor", "pitch", "No units", 1.5, 1.5),
        ("113828", "Pitch Factor", "pitch", "{no_units}", 1.5, 1.5),
        ("113828", "Pitch Factor", "pitch", "mm", 1.5, None),
    ],
)
def test_every_other_value_is_read_in_its_unit_or_left_out(code, meaning, field, unit, value, expected):
    [found] = dose_events(report(event("1.9", num(code, meaning, value, unit), pitch=None, dose=False)))

    assert getattr(found, field) == (pytest.approx(expected) if expected else None)
    assert found.flags == (() if expected else (f"dose_unit:{field}",))


@pytest.mark.parametrize(
    "written",
    [
        {"FloatingPointValue": 300.0}, {"RationalNumeratorValue": 600, "RationalDenominatorValue": 2},
        {"NumericValue": 300, "FloatingPointValue": 299.9},
    ],
)  # fmt: skip
def test_a_value_may_be_written_as_floating_point_or_fraction_alone(written):
    item = num("113734", "X-Ray Tube Current", 0, "mA")
    del item.MeasuredValueSequence[0].NumericValue
    for key, value in written.items():
        setattr(item.MeasuredValueSequence[0], key, value)

    [found] = dose_events(report(event("1.9", container("113831", "Source", item))))

    assert (found.tube_current_ma, found.flags) == (300, ())


def test_a_pitch_in_an_unknown_unit_gives_no_tube_charge():
    [found] = dose_events(report(event("1.9", source(PER_ROTATION), num("113828", "Pitch", 1.5, "mm"), pitch=None)))

    assert found.tube_charge_mas is None


@pytest.mark.parametrize("kind", ["67", "22", "33", "34", "35"])
def test_a_dose_report_is_read_in_every_class_that_scanners_write_it_in(kind):
    written = report(event("1.9", source(PER_ROTATION)))
    written.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.88.{kind}"

    [found] = dose_events(written)

    assert found.tube_charge_mas == pytest.approx(100)


def test_a_value_that_was_left_out_is_flagged_in_the_technique_of_its_images():
    [found] = dose_events(report(event("1.9", source(num("113834", "Exposure Time per Rotation", 0.5, "turns")))))

    technique = harvest(series(IrradiationEventUID="1.9", ScanOptions="AXIAL"), dose_events={"1.9": found})

    assert "dose_unit:rotation_time_s" in technique.flags
    assert technique.tube_charge_mas is None


def test_an_axial_event_has_no_pitch_to_divide_by():
    [found] = dose_events(report(event("1.9", source(PER_ROTATION), pitch=None)))

    assert found.tube_charge_mas == pytest.approx(150)


def test_two_sources_give_no_tube_charge():
    [found] = dose_events(report(event("1.9", source(PER_ROTATION), source(PER_ROTATION))))

    assert found.n_sources == 2
    assert found.tube_charge_mas is None


def test_every_event_of_a_report_is_found_and_one_without_uid_is_left_out():
    found = dose_events(report(event("1.1", source()), event("", source()), event("1.2", source())))

    assert [one.irradiation_event_uid for one in found] == ["1.1", "1.2"]


@pytest.mark.parametrize("kind", ["88.11", "88.59", "88.65", "2"])
def test_an_object_of_another_class_has_no_events(kind):
    other = report(event("1.9", source()))
    other.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.{kind}"

    assert dose_events(other) == ()


def test_a_comprehensive_report_of_something_else_has_no_events():
    findings = container("126010", "Imaging Measurements", num("113733", "KVP", 120, "kV"))

    assert dose_events(dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", ContentSequence=[findings])) == ()
