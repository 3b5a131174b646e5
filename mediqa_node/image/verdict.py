"""The verdict on a score for this scanner and protocol, given only if the site has calibrated it."""

from collections.abc import Sequence

from mediqa_node.domain.assessment import Calibration
from mediqa_node.domain.scoring import CheckpointId

ANY = "*"


def verdict_of(
    quality: float | None,
    calibrations: Sequence[Calibration],
    *,
    modality: str,
    station_name: str,
    protocol_name: str,
    checkpoint: CheckpointId,
    fingerprint: str,
) -> tuple[str, Calibration | None]:
    """Return the verdict on Q and the calibration behind it.

    A calibration applies only to the weights, card and preprocessing that it was made with. If several apply, an exact
    name takes precedence over `*`, the station over the protocol, then the latest approval.

    Args:
        quality: Q, 0..1. NaN gets `review`; None gets no verdict.
        station_name: Station Name (0008,1010), else Manufacturer's Model Name.
        protocol_name: Protocol Name (0018,1030), else Series Description.
        fingerprint: of the preprocessing.

    Returns:
        `acceptable`, `borderline` or `review` with its calibration; or `uncalibrated` and None, always
        so for untrained weights.
    """
    matching = [
        calibration
        for calibration in calibrations
        if quality is not None
        and checkpoint.trained
        and calibration.made_for(checkpoint.sha256, checkpoint.card_sha256)
        and calibration.fingerprint == fingerprint
        and calibration.modality == modality
        and calibration.station_name in (station_name, ANY)
        and calibration.protocol_name in (protocol_name, ANY)
    ]
    if quality is None or not matching:
        return "uncalibrated", None
    chosen = max(matching, key=_precedence)
    if quality >= chosen.borderline_below:
        return "acceptable", chosen
    return ("borderline" if quality >= chosen.review_below else "review"), chosen


def _precedence(calibration: Calibration) -> tuple[bool, bool, str, str]:
    return (
        calibration.station_name != ANY,
        calibration.protocol_name != ANY,
        calibration.approved_on,
        calibration.id,
    )
