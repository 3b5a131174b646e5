"""The report says what was assessed, no more than that, and refuses what contradicts itself."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from support.factories import (
    ASSESSED_AT,
    QUALITIES,
    REQUESTS,
    SLICE_WEIGHTS,
    WEIGHTS,
    assessment,
    calibration,
    ct_image,
    ct_volume,
    enhanced_mr,
    fundus,
    mr_without_field_strength,
    outside_range,
    predicted_mas,
    prompt,
    range_position,
    references,
    report_request,
    source_header,
    stack_result,
)
from support.report_reading import (
    children,
    coded_value,
    comment,
    groups,
    name,
    number,
    parsed,
    text,
    walk,
    with_assessment,
)
from support.siblings import one_in

from mediqa_node.dicom.report import codes
from mediqa_node.dicom.report.build import ReportRequest, build_report
from mediqa_node.domain.assessment import rounded
from mediqa_node.domain.errors import InvalidInstance
from mediqa_node.domain.images import StackKey
from mediqa_node.domain.prompt import REGIONS, TYPES
from mediqa_node.domain.scoring import Prediction

ALL = pytest.mark.parametrize("make", REQUESTS.values(), ids=REQUESTS)


def test_the_series_is_rated_on_both_scales_and_each_slice_on_its_own():
    report = parsed(ct_volume())
    found = groups(report)

    assert list(found) == ["IQA series", *(f"IQA slice {i}/7" for i in range(1, 8))]
    series, *slices = found.values()
    assert number(series, codes.RATING) == 100 * number(series, codes.SCORE)
    assert float(number(series, codes.SCORE)) == ct_volume().assessment.quality
    assert [float(number(g, codes.RATING)) for g in slices] == pytest.approx([100 * q for q in QUALITIES])
    assert [float(number(g, codes.SLICE_WEIGHT)) for g in slices] == pytest.approx(list(SLICE_WEIGHTS))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1e-6, 1)), min_size=2, max_size=7))
def test_the_exact_values_obey_the_weighted_sum(parts):
    total = sum(w for _, w in parts)
    weights = [w / total for _, w in parts]
    headers = [source_header(i + 1) for i in range(len(parts))]
    primary = stack_result(references(headers), [q for q, _ in parts], weights, prompt=prompt())

    series, *slices = groups(build_report(report_request(assessment(primary), headers))).values()

    learned = primary.has_learned_weights
    shares = [number(g, codes.SLICE_WEIGHT) if learned else Decimal(1) / len(slices) for g in slices]
    written = sum(w * number(g, codes.RATING) for w, g in zip(shares, slices, strict=True))
    assert abs(written - number(series, codes.RATING)) < Decimal("1e-6")
    assert all(0 <= number(g, codes.RATING) <= 100 for g in (series, *slices))


@ALL
def test_units_are_coded_with_value_scheme_and_meaning(make):
    allowed = {tuple(unit) for unit in (codes.PERCENT_RANGE, codes.PIXELS, codes.NO_UNITS, *codes.UNITS.values())}
    for item in walk(parsed(make())):
        if item.ValueType == "NUM":
            [unit] = item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence
            assert (unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning) in allowed
            assert len(str(item.MeasuredValueSequence[0].NumericValue)) <= 16


@ALL
def test_every_number_of_a_group_has_a_child_because_viewers_fail_without(make):
    for group in groups(parsed(make())).values():
        numbers = [item for item in group.ContentSequence if item.ValueType == "NUM"]
        assert numbers
        for item in numbers:
            assert coded_value(item, codes.DERIVATION) == "414135002"


@ALL
def test_tracking_uids_are_distinct_and_containers_separate(make):
    report = parsed(make())
    uids = [item.UID for item in walk(report) if name(item) == codes.TRACKING_UID[:2]]

    assert len(set(uids)) == len(uids) == len(groups(report))
    assert {item.ContinuityOfContent for item in walk(report) if item.ValueType == "CONTAINER"} == {"SEPARATE"}


@ALL
def test_every_image_referred_to_is_evidence_and_evidence_is_every_instance(make):
    request = make()
    report = parsed(request)
    [study] = report.CurrentRequestedProcedureEvidenceSequence
    [series] = study.ReferencedSeriesSequence
    evidence = {(r.ReferencedSOPClassUID, r.ReferencedSOPInstanceUID) for r in series.ReferencedSOPSequence}
    referred = {
        (item.ReferencedSOPSequence[0].ReferencedSOPClassUID, item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for item in walk(report)
        if item.ValueType == "IMAGE"
    }

    assert evidence == {(s.SOPClassUID, s.SOPInstanceUID) for s in request.sources}
    assert referred <= evidence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (
        request.assessment.study_instance_uid,
        request.assessment.series_instance_uid,
    )


def test_only_scored_images_are_in_the_library_and_all_instances_in_the_evidence():
    report = parsed(ct_volume())
    [library] = children(report, codes.IMAGE_LIBRARY)
    images = children(library.ContentSequence[0], codes.SOURCE)

    assert len(images) == 7
    assert (
        len(report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence) == 20
    )


def test_frames_of_a_multi_frame_instance_are_named():
    found = groups(parsed(enhanced_mr()))

    [whole] = children(found["IQA series"], codes.SOURCE_OF_MEASUREMENT)
    [one] = children(found["IQA slice 2/5"], codes.SOURCE_OF_MEASUREMENT)
    assert list(whole.ReferencedSOPSequence[0].ReferencedFrameNumber) == [1, 3, 4, 6, 7]
    assert one.ReferencedSOPSequence[0].ReferencedFrameNumber == 3


def test_a_single_image_has_no_slice_groups():
    assert list(groups(parsed(ct_image()))) == ["IQA series"]


def test_further_stacks_are_groups_of_their_own():
    report = parsed(enhanced_mr())
    other = groups(report)["IQA stack 2"]

    assert float(number(other, codes.SCORE)) == pytest.approx(0.6)
    assert coded_value(other, codes.PREDICTED_TYPE) == "113043"
    assert "stack: b 1000" in [item.TextValue for item in children(other, codes.ALGORITHM_PARAMETERS)]
    assert "holds 2 stacks of images; 2 scored" in comment(report)


def test_stacks_of_another_matrix_get_a_library_group_of_their_own():
    request = enhanced_mr()
    [other] = request.assessment.others
    wide = replace(other, stack=replace(other.stack, columns=256))
    [library] = children(parsed(with_assessment(request, others=(wide,))), codes.IMAGE_LIBRARY)

    assert [int(number(group, codes.COLUMNS)) for group in library.ContentSequence] == [128, 256]


def stated(prediction: Prediction, **changes: object) -> Dataset:
    """The series group of a site that wants predicted parameters."""
    primary = replace(ct_volume().assessment.primary, prediction=prediction)
    wanted = replace(with_assessment(ct_volume(), primary=primary), predicted_parameters=True)
    return groups(parsed(replace(wanted, **changes)))["IQA series"]


def test_recorded_values_are_acquisition_context_and_predicted_ones_have_private_names():
    report = parsed(replace(ct_volume(), predicted_parameters=True))
    standard = [item for item in walk(report) if name(item) == codes.EXPOSURE[:2]]

    assert [item.RelationshipType for item in standard] == ["HAS ACQ CONTEXT"]
    assert number(groups(report)["IQA series"], codes.PREDICTED["mas"]) == Decimal("101.5")
    assert (
        "Predicted exposure 102 mA.s, estimated from the image, not recorded; 50.8 to 203 mA.s within one root mean "
        "square error on held-out sources." in comment(report)
    )


@pytest.mark.parametrize("make", [ct_volume, enhanced_mr])
def test_no_predicted_parameter_is_stated_unless_the_site_asks(make):
    report = parsed(make())

    assert not {code[:2] for code in codes.PREDICTED.values()} & {name(item) for item in walk(report)}
    assert "Predicted" not in comment(report)


@pytest.mark.parametrize(
    "prediction",
    [
        predicted_mas(400.1),
        predicted_mas(1.9),
        predicted_mas(-3.0),
        predicted_mas(learned=None),
        predicted_mas(likely=None),
        Prediction(name="tesla", value=20.5, unit="T", learned=(0.2, 7.0), likely=(11.0, 38.0)),
    ],
    ids=["above", "below", "negative", "range unknown", "error unknown", "20.5 T"],
)
def test_a_prediction_outside_what_was_learned_is_never_stated(prediction):
    assert not {code[:2] for code in codes.PREDICTED.values()} & {name(item) for item in stated(prediction)[0x0040A730]}
    primary = replace(ct_volume().assessment.primary, prediction=prediction)
    request = replace(with_assessment(ct_volume(), primary=primary), predicted_parameters=True)
    assert "Predicted" not in comment(parsed(request))


def test_a_prediction_at_the_end_of_what_was_learned_is_stated():
    assert [number(stated(predicted_mas(v)), codes.PREDICTED["mas"]) for v in (2.0, 400.0)] == [2, 400]


def test_a_normalised_prediction_carries_no_physical_unit():
    normalised = predicted_mas(0.4, unit="{0:1}", learned=(0.0, 1.0), likely=(0.3, 0.5))
    [guess] = children(stated(normalised), codes.PREDICTED["mas"])

    assert guess.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "{0:1}"


@pytest.mark.parametrize(
    ("quality", "thresholds", "shown"),
    [
        (0.7345, (0.4, 0.6), "73"),
        (0.735, (0.4, 0.6), "74"),
        (0.597, (0.4, 0.6), "59"),
        (0.599999999, (0.4, 0.6), "59"),
        (0.6, (0.4, 0.6), "60"),
        (0.29, (0.29, 0.6), "29"),
        (0.604, (0.4, 0.604), "61"),
        (0.603, (0.4, 0.604), "60"),
        (0.3996, (0.4, 0.6), "39"),
        (0.4004, (0.4004, 0.6), "41"),
        (0.605, (0.602, 0.607), "60.5"),
        (0.9999, (0.4, 1.0), "99"),
        (1.0, (0.4, 1.0), "100"),
        (0.0, (0.0, 0.6), "0"),
        (1e-17, (0.0, 0.6), "0"),
    ],
)
def test_a_rating_is_a_whole_number_on_its_own_side_of_the_thresholds(quality, thresholds, shown):
    review, borderline = thresholds
    record = calibration(review_below=review, borderline_below=borderline)
    verdict = "acceptable" if quality >= borderline else "borderline" if quality >= review else "review"
    request = one_image(quality)
    report = parsed(with_assessment(request, calibration=record, verdict=verdict))
    series = groups(report)["IQA series"]

    assert text(series, codes.RATING) == shown
    assert float(number(series, codes.RATING)) == pytest.approx(100 * quality, rel=1e-15)
    assert float(number(series, codes.SCORE)) == quality
    assert comment(report).startswith(f"Image quality rating {shown} of 100: ")


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_no_rounding_crosses_a_threshold(quality, one, other):
    record = calibration(review_below=min(one, other), borderline_below=max(one, other))

    shown = rounded(quality, record)

    assert all((shown < Decimal(repr(limit))) == (quality < limit) for limit in record.thresholds)
    assert abs(shown - Decimal(repr(quality))) <= Decimal("0.01")


def test_a_rating_without_thresholds_is_rounded_to_the_nearest():
    assert [text(groups(parsed(one_image(q)))["IQA series"], codes.RATING) for q in (0.597, 0.004, 0.995)] == [
        "60",
        "0",
        "100",
    ]


@ALL
def test_the_series_group_and_the_comment_begin_with_what_matters(make):
    report = parsed(make())
    first, second, *_ = groups(report)["IQA series"].ContentSequence
    calibrated = make is ct_volume

    assert name(first) == codes.RATING[:2]
    assert name(second) == (codes.ACTION if calibrated else codes.CALIBRATION)[:2]
    headline = comment(report).splitlines()[0]
    shown = text(groups(report)["IQA series"], codes.RATING)
    verdict = {ct_volume: "Acceptable", outside_range: "no verdict"}.get(make, "uncalibrated")
    assert f"Image quality rating {shown} of 100: {verdict}." in headline


def test_equal_weights_that_nobody_learned_are_not_stated():
    report = parsed(enhanced_mr())  # five slices of weight 0.2
    series = groups(report)["IQA series"]

    assert codes.SLICE_WEIGHT[:2] not in {name(item) for item in walk(report)}
    assert "series=mean-of-slices" in [item.TextValue for item in children(series, codes.ALGORITHM_PARAMETERS)]
    learned = parsed(ct_volume())
    assert "mean-of-slices" not in learned.to_json()
    assert sum(name(item) == codes.SLICE_WEIGHT[:2] for item in walk(learned)) == 7


def test_a_header_without_field_strength_gives_no_field_strength():
    values = {name(item) for item in walk(parsed(mr_without_field_strength()))}

    assert not {codes.EXPOSURE[:2], codes.FIELD_STRENGTH[:2]} & values


@pytest.mark.parametrize(
    ("verdict", "assessed", "action"),
    [
        ("acceptable", "111237", "IQA-ACT-1"),
        ("borderline", "111237", "IQA-ACT-2"),
        ("review", "111236", "IQA-ACT-3"),
    ],
)
def test_a_verdict_is_given_by_the_site_s_own_standard(verdict, assessed, action):
    series = groups(parsed(with_assessment(ct_volume(), verdict=verdict)))["IQA series"]

    assert coded_value(series, codes.QUALITY_ASSESSMENT) == assessed
    assert coded_value(series, codes.QUALITY_STANDARD) == "111240"
    assert coded_value(series, codes.ACTION) == action
    parameters = [item.TextValue for item in children(series, codes.ALGORITHM_PARAMETERS)]
    assert "thresholds: borderline<0.6 review<0.4" in parameters
    assert "calibration=CAL-7 series=120 readers=3" in parameters


@pytest.mark.parametrize(
    "changes",
    [
        {"calibration": None},
        {"verdict": "uncalibrated"},
        {"calibration": calibration(weights_sha256="0" * 64)},
        {"calibration": calibration(card_sha256="0" * 64)},
        {"calibration": calibration(fingerprint="another")},
    ],
    ids=["none", "not applied", "other weights", "other card", "other preprocessing"],
)
def test_without_a_matching_calibration_there_is_no_verdict(changes):
    report = parsed(with_assessment(ct_volume(), **changes))
    verdicts = {codes.QUALITY_ASSESSMENT[:2], codes.QUALITY_STANDARD[:2], codes.ACTION[:2]}

    assert not verdicts & {name(item) for item in walk(report)}
    assert "Uncalibrated" in comment(report)


def test_a_report_outside_the_training_range_states_it_by_code_and_number_and_gives_no_verdict():
    report = parsed(outside_range())
    verdicts = {codes.QUALITY_ASSESSMENT[:2], codes.QUALITY_STANDARD[:2], codes.ACTION[:2]}
    found = groups(report)

    assert not verdicts & {name(item) for item in walk(report)}
    for label in ("IQA series", "IQA stack 2"):
        assert coded_value(found[label], codes.CALIBRATION) == "IQA-CAL-1"
        assert (text(found[label], codes.TIMES_LIMIT), number(found[label], codes.TIMES_LIMIT)) == (
            "1.03",
            Decimal("1.034"),
        )
    first, rest = comment(report).split("\r\n")
    assert first == "OUTSIDE THE TRAINING RANGE. Image quality rating 73 of 100: no verdict."
    assert "(local statistics 1.03 x the limit, outside on 4 of 7 slices)" in rest
    assert "1 further stack(s) are outside the training range" in rest
    assert "Uncalibrated" not in rest


def test_a_report_inside_is_the_same_whether_its_distance_is_known_or_not():
    request = ct_volume()
    near = replace(request.assessment.primary, range_position=range_position(0.99))

    assert parsed(with_assessment(request, primary=near)) == parsed(request)


def test_a_calibrated_report_does_not_say_uncalibrated():
    assert "Uncalibrated" not in comment(parsed(ct_volume()))


@ALL
def test_it_is_research_unverified_preliminary_and_says_so_in_words(make):
    report = parsed(make())

    assert "FOR RESEARCH USE ONLY - NOT FOR DIAGNOSTIC USE." in comment(report)
    assert comment(report).isascii()
    assert report.ContentQualification == "RESEARCH"
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert "VerifyingObserverSequence" not in report
    assert report.SeriesDescription == "MedIQA image quality (RESEARCH, not for diagnosis)"
    assert report.Modality == "SR"


def test_untrained_weights_cannot_be_overlooked():
    report = parsed(mr_without_field_strength())
    versions = {item.TextValue for item in walk(report) if name(item) == codes.ALGORITHM_VERSION[:2]}

    assert comment(report).startswith("UNTRAINED WEIGHTS: the score has no meaning.")
    assert versions == {"0.1.0-untrained"}
    assert report.SoftwareVersions == "0.1.0-untrained"
    assert "UNTRAINED" not in comment(parsed(fundus()))


def test_weights_that_nobody_has_evaluated_cannot_be_overlooked():
    request = fundus()
    checkpoint = replace(request.assessment.checkpoint, evaluated=False)

    report = parsed(replace(request, assessment=replace(request.assessment, checkpoint=checkpoint)))

    assert comment(report).startswith("NOT EVALUATED: nobody has measured")
    assert "NOT EVALUATED" not in comment(parsed(request))


def test_a_slice_that_could_not_be_decoded_makes_the_report_partial():
    report = parsed(enhanced_mr())

    assert (report.CompletionFlag, parsed(ct_volume()).CompletionFlag) == ("PARTIAL", "COMPLETE")
    assert report.CompletionFlagDescription == "1 selected slice(s) could not be decoded"
    assert "could not be decoded" in comment(report)


def test_the_weights_that_spoke_are_named_in_every_group():
    for group in groups(parsed(ct_volume())).values():
        assert f"weights-sha256={WEIGHTS}" in [i.TextValue for i in children(group, codes.ALGORITHM_PARAMETERS)]


@pytest.mark.parametrize("region", one_in(4, REGIONS))
def test_every_region_has_a_code(region):
    request = ct_volume()
    primary = replace(request.assessment.primary, prompt=prompt(region=region))
    series = groups(parsed(with_assessment(request, primary=primary)))["IQA series"]

    assert coded_value(series, codes.PREDICTED_REGION) == codes.REGIONS[region].value
    assert bool(children(series, codes.FINDING_SITE)) == (region != "unknown")


@pytest.mark.parametrize("image_type", TYPES)
def test_every_image_type_has_a_code(image_type):
    assert codes.TYPES[image_type].scheme in ("DCM", "SCT", "99MEDIQA")


def test_codes_fit_their_value_representations_and_never_share_a_value():
    found = [value for value in vars(codes).values() if isinstance(value, codes.Code)]
    for table in (codes.REGIONS, codes.TYPES, codes.MODALITIES, codes.DIMENSIONS, codes.UNITS, codes.PREDICTED):
        found += table.values()
    meanings: dict[tuple[str, str], set[str]] = {}
    for code in found:
        assert len(code.value) <= 16
        assert len(code.meaning) <= 64
        meanings.setdefault(code[:2], set()).add(code.meaning)
    assert all(len(words) == 1 for words in meanings.values())


def test_stack_keys_may_be_empty():
    request = enhanced_mr()
    [other] = request.assessment.others
    plain = replace(other, stack=replace(other.stack, key=StackKey()))

    group = groups(parsed(with_assessment(request, others=(plain,))))["IQA stack 2"]
    assert "stack: 3 images" in [item.TextValue for item in children(group, codes.ALGORITHM_PARAMETERS)]


def one_image(score: float, weight: float = 1.0, **changes: object) -> ReportRequest:
    headers = [source_header()]
    primary = stack_result(references(headers), [score], [weight], prompt=prompt("2D"))
    return report_request(assessment(replace(primary, **changes)), headers)


@pytest.mark.parametrize(
    "request_",
    [
        one_image(1.2),
        one_image(-0.1),
        one_image(float("nan")),
        one_image(0.5, quality=0.6),
        one_image(0.5, slices=()),
        replace(one_image(0.5), sources=[source_header(2)]),
        replace(one_image(0.5), sources=[]),
        replace(one_image(0.5), created_at=ASSESSED_AT.replace(tzinfo=None)),
    ],
    ids=["above 1", "below 0", "NaN", "not the sum", "no slice", "foreign image", "no source", "naive time"],
)
def test_a_number_no_archive_must_hold_is_refused(request_):
    with pytest.raises(ValueError, match="to report"):
        build_report(request_)


def test_a_frame_that_does_not_exist_is_refused():
    request = enhanced_mr()
    with pytest.raises(ValueError, match="no frame 12"):
        build_report(replace(request, sources=[source_header(sop_class=request.sources[0].SOPClassUID, frames=11)]))


def test_a_source_of_another_study_is_refused():
    with pytest.raises(InvalidInstance, match="StudyInstanceUID"):
        build_report(replace(ct_image(), sources=[source_header(StudyInstanceUID="1.2.3")]))
