"""The group of measures in a report: a method and an uncertainty with each number, and no number without a value."""

from dataclasses import replace
from io import BytesIO

import highdicom
import pydicom
import pytest
from pydicom import Dataset
from support.factories import ct_volume
from support.measured import measured_stack, measures

from mediqa_node.dicom.report.build import build_report, report_bytes
from mediqa_node.domain.baseline import HEADING, usual_values
from mediqa_node.domain.images import FrameRef


def concept(item: Dataset) -> tuple[str, str]:
    code = item.ConceptNameCodeSequence[0]
    return code.CodeValue, code.CodingSchemeDesignator


def groups(report: Dataset) -> list[Dataset]:
    [container] = [one for one in report.ContentSequence if concept(one)[0] == "126010"]
    return list(container.ContentSequence)


def of_measures(report: Dataset) -> Dataset:
    [found] = [
        group
        for group in groups(report)
        if any(one.get("TextValue") == "IQA measures" for one in group.ContentSequence)
    ]
    return found


def numbers(group: Dataset) -> dict[str, Dataset]:
    return {concept(one)[0]: one for one in group.ContentSequence if one.ValueType == "NUM"}


def on_measures(report: Dataset) -> str:
    """Return the comment on the measurements, one of the Qualitative Evaluations."""
    [said] = [one.TextValue for one in report.ContentSequence[-1].ContentSequence if concept(one)[0] == "IQM-COMMENT"]
    return said


def test_each_number_has_its_unit_method_derivation_and_uncertainty() -> None:
    report = build_report(replace(ct_volume(), measured=measured_stack()))

    found = numbers(of_measures(report))

    assert set(found) == {"IQM-CTNOISE", "113980", "IQM-CTF50", "IQM-CTFOM", "113830"}, (
        "SSDE is not measurable: no number"
    )
    noise, size = found["IQM-CTNOISE"], found["113980"]
    assert noise.MeasuredValueSequence[0].FloatingPointValue == 12.0
    assert noise.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "[hnsf'U]"
    properties = {concept(one)[0]: one for one in noise.ContentSequence}
    assert properties["370129005"].ConceptCodeSequence[0].CodeMeaning == "mode of local SD, version 1"
    assert properties["121401"].ConceptCodeSequence[0].CodeMeaning == "Median"
    assert properties["371884006"].MeasuredValueSequence[0].FloatingPointValue == 0.4
    assert {concept(one)[0]: one for one in size.ContentSequence}["370129005"].ConceptCodeSequence[
        0
    ].CodeValue == "113982"


def test_the_dose_states_its_phantom() -> None:
    group = of_measures(build_report(replace(ct_volume(), measured=measured_stack())))

    [phantom] = numbers(group)["113830"].ContentSequence
    assert (concept(phantom)[0], phantom.ConceptCodeSequence[0].CodeValue) == ("113835", "113691")
    unknown = of_measures(build_report(replace(ct_volume(), measured=measured_stack(ctdi_phantom_cm=None))))
    assert "ContentSequence" not in numbers(unknown)["113830"]


def test_versions_slices_and_limits_are_coded() -> None:
    group = of_measures(build_report(replace(ct_volume(), measured=measured_stack())))

    [parameters] = [one.TextValue for one in group.ContentSequence if concept(one)[0] == "111002"]
    assert "ct.noise.soft v1 n=16, ct.dw v1 n=20" in parameters
    limited = {
        name
        for name, one in numbers(group).items()
        if any(concept(part)[0] == "IQM-VALIDITY" for part in one.get("ContentSequence", ()))
    }
    assert limited == {"IQM-CTF50"}


def test_a_number_for_people_has_two_digits_of_its_uncertainty() -> None:
    size = replace(measures()[1], value=242.89459, uncertainty=0.2345)

    group = of_measures(build_report(replace(ct_volume(), measured=measured_stack(measures=(size,)))))

    measured = numbers(group)["113980"].MeasuredValueSequence[0]
    assert (str(measured.NumericValue), measured.FloatingPointValue) == ("242.89", 242.89459)


def test_what_is_limited_or_not_measurable_says_why() -> None:
    report = build_report(replace(ct_volume(), measured=measured_stack()))

    assert on_measures(report) == (
        "Limited: sharpness of the skin edge (f50) (at least as sharp as the pixels can show (Nyquist 0.5 / mm)). "
        "Not measurable: size-specific dose estimate (CTDIvol refers to no stated phantom of 16 or 32 cm)."
    )


def test_the_images_that_were_measured_are_its_source() -> None:
    group = of_measures(build_report(replace(ct_volume(), measured=measured_stack())))

    sources = [one for one in group.ContentSequence if one.ValueType == "IMAGE"]
    assert [concept(one)[0] for one in sources] == ["121112"] * 3


def test_a_baseline_is_stated_next_to_the_value_and_what_stands_out_at_the_top() -> None:
    usual = usual_values(
        [measured_stack(study_instance_uid=f"1.2.{i}", measures=measures(11.0 + i % 3)) for i in range(40)]
    )

    ordinary = build_report(replace(ct_volume(), measured=measured_stack(), usual=usual))
    noisy = build_report(replace(ct_volume(), measured=measured_stack(measures=measures(30.0)), usual=usual))

    said = on_measures(ordinary)
    assert "noise in soft tissue: 12.0 HU; usual here 12.0 +- 1.5 for Dw 280-320 mm (40 exams)." in said
    assert HEADING not in str(ordinary)
    lines = str(noisy[0x0040A730].value[-1].ContentSequence[0].TextValue).split("\r\n")
    assert lines[1] == f"{HEADING}: noise in soft tissue 30.0 HU; usual here 12.0 +- 1.5 for Dw 280-320 mm (40 exams)."
    assert "because" not in "".join(lines)


def test_without_measures_a_report_has_no_such_group() -> None:
    for measured in (None, measured_stack(measures=())):
        report = build_report(replace(ct_volume(), measured=measured))
        assert not [
            one for group in groups(report) for one in group.ContentSequence if one.get("TextValue") == "IQA measures"
        ]


def test_another_value_gives_another_report() -> None:
    one, other = (
        build_report(replace(ct_volume(), measured=measured_stack(measures=measures(noise)))) for noise in (12.0, 12.1)
    )

    assert one.SOPInstanceUID != other.SOPInstanceUID


def test_a_measured_image_must_be_among_the_sources() -> None:
    stranger = FrameRef(sop_class_uid="1.2", sop_instance_uid="1.2.3", frame_number=None, instance_index=0)

    with pytest.raises(ValueError, match="not among the sources"):
        build_report(replace(ct_volume(), measured=measured_stack(frames=(stranger,))))


def test_highdicom_reads_the_measures() -> None:
    part10 = report_bytes(build_report(replace(ct_volume(), measured=measured_stack())))

    report = highdicom.sr.srread(BytesIO(part10))

    found = [
        group for group in report.content.get_image_measurement_groups() if group.tracking_identifier == "IQA measures"
    ]
    [group] = found
    names = {one.name.meaning: (one.value, one.unit.value) for one in group.get_measurements()}
    assert names["noise in soft tissue"] == (12.0, "[hnsf'U]")
    assert names["Water Equivalent Diameter"] == (290.0, "mm")
    assert pydicom.dcmread(BytesIO(part10)).SOPClassUID == report.SOPClassUID
