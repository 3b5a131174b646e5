"""What a score means where a site has calibrated it, and that it means nothing elsewhere."""

from dataclasses import replace

import pytest

from mediqa_node.domain.assessment import Calibration
from mediqa_node.domain.scoring import CheckpointId
from mediqa_node.image.verdict import verdict_of

CHECKPOINT = CheckpointId(name="m", sha256="ab" * 32, trained=True, size="base", card_sha256="ca" * 32)
BASE = Calibration(
    id="1",
    modality="CT",
    station_name="CT1",
    protocol_name="Thorax",
    borderline_below=0.6,
    review_below=0.4,
    n_series=50,
    n_readers=3,
    approved_by="A",
    approved_on="2026-11-01",
    weights_sha256="ab" * 32,
    card_sha256="ca" * 32,
    fingerprint="f" * 16,
)


def verdict(quality, *calibrations, checkpoint=CHECKPOINT, station="CT1", protocol="Thorax", modality="CT"):
    return verdict_of(
        quality,
        calibrations,
        modality=modality,
        station_name=station,
        protocol_name=protocol,
        checkpoint=checkpoint,
        fingerprint="f" * 16,
    )


@pytest.mark.parametrize(
    ("quality", "expected"),
    [
        (1.0, "acceptable"),
        (0.6, "acceptable"),
        (0.599, "borderline"),
        (0.4, "borderline"),
        (0.399, "review"),
        (0, "review"),
    ],
)
def test_the_verdict_follows_both_thresholds(quality, expected):
    assert verdict(quality, BASE) == (expected, BASE)


def test_a_quality_that_is_no_number_is_for_review():
    assert verdict(float("nan"), BASE)[0] == "review"


def test_without_a_calibration_there_is_no_verdict():
    assert verdict(0.9) == ("uncalibrated", None)


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": "cd" * 32},
        {"card_sha256": "cd" * 32},
        {"fingerprint": "0" * 16},
        {"modality": "MR"},
        {"station_name": "CT2"},
        {"protocol_name": "Abdomen"},
    ],
)
def test_a_calibration_of_anything_else_does_not_count(change):
    assert verdict(0.9, replace(BASE, **change)) == ("uncalibrated", None)


def test_untrained_weights_are_never_calibrated():
    assert verdict(0.9, BASE, checkpoint=replace(CHECKPOINT, trained=False)) == ("uncalibrated", None)


def test_an_exact_name_goes_before_any():
    anywhere = replace(BASE, id="2", station_name="*", protocol_name="*")
    station = replace(BASE, id="3", protocol_name="*")
    protocol = replace(BASE, id="4", station_name="*")

    assert verdict(0.9, anywhere, protocol, station, BASE)[1] is BASE
    assert verdict(0.9, anywhere, protocol, station)[1] is station
    assert verdict(0.9, anywhere, protocol)[1] is protocol
    assert verdict(0.9, anywhere, station="CT9", protocol="Other")[1] is anywhere


def test_of_two_equal_calibrations_the_later_approval_counts():
    later = replace(BASE, id="0", approved_on="2026-11-20", borderline_below=0.95)

    assert verdict(0.9, later, BASE) == ("borderline", later)
