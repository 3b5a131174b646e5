"""Irradiation events out of a radiation dose report, by code or by meaning."""

import pytest
from pydicom import Dataset
from support.header_builders import dataset

from mediqa_node.dicom.technique.dose_sr import RADIATION_DOSE_SR, dose_events


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


def event(uid: str, *sources: Dataset, pitch: float | None = 1.5) -> Dataset:
    pitches = [num("113828", "Pitch Factor", pitch, "{ratio}")] if pitch else []
    phantom = dataset(
        ValueType="CODE",
        ConceptCodeSequence=dataset(CodeValue="113691", CodingSchemeDesignator="DCM", CodeMeaning="IEC Body Phantom"),
        **name("113835", "CTDIw Phantom Type"),
    )
    dose = container(
        "113829", "CT Dose", num("113830", "Mean CTDIvol", 8.5, "mGy"), num("113838", "DLP", 300, "mGy.cm"), phantom
    )
    parameters = container("113822", "CT Acquisition Parameters", *pitches, *sources)
    identity = dataset(ValueType="UIDREF", UID=uid, **name("113769", "Irradiation Event UID"))
    return container("113819", "CT Acquisition", identity, parameters, dose)


def report(*events: Dataset) -> Dataset:
    return dataset(SOPClassUID=RADIATION_DOSE_SR, ContentSequence=list(events))


def test_an_event_gives_current_rotation_time_pitch_and_dose():
    [found] = dose_events(report(event("1.9", source(PER_ROTATION))))

    assert found.irradiation_event_uid == "1.9"
    assert (found.tube_current_ma, found.rotation_time_s, found.pitch) == (300, 0.5, 1.5)
    assert (found.ctdi_vol_mgy, found.dlp_mgy_cm, found.ctdi_phantom) == (8.5, 300, "IEC Body Phantom")
    assert found.tube_charge_mas == pytest.approx(100)


def test_a_right_meaning_under_a_wrong_code_is_understood():
    wrong_code = num("113843", "Exposure Time per Rotation", 0.5, "s")

    [found] = dose_events(report(event("1.9", source(wrong_code))))

    assert found.rotation_time_s == 0.5


def test_a_right_code_under_a_wrong_meaning_is_understood():
    wrong_meaning = num("113834", "Exposure Time", 0.5, "s")

    [found] = dose_events(report(event("1.9", source(wrong_meaning))))

    assert found.rotation_time_s == 0.5


def test_a_rotation_time_in_milliseconds_is_converted():
    [found] = dose_events(report(event("1.9", source(num("113834", "Exposure Time per Rotation", 500, "ms")))))

    assert found.rotation_time_s == 0.5


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


def test_an_object_that_is_no_dose_report_has_no_events():
    other = report(event("1.9", source()))
    other.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"

    assert dose_events(other) == ()
