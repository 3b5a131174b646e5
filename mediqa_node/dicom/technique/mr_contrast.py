"""Derive the contrast of an MR image from the physics of its acquisition: TE, TR, TI and flip angle.

This checks the names in the header. The limits are those of common clinical protocols at 1.5 T and
3 T; between them the contrast stays unknown.
"""

import re
from dataclasses import dataclass

from mediqa_node.dicom.header import FrameHeader

_GRADIENT_NAME = re.compile(r"gre|spgr|flash|(?<![a-z])\*?(fl|tfl)[23]d|ffe|tfe|mp.?rage", re.I)
_SPIN_3D_NAME = re.compile(r"space|cube|vista|spcir|spc(?![a-z])", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class MrTiming:
    """The timing that determines the contrast of an MR image; times in ms, angle in degrees, None if unknown."""

    echo_time_ms: float | None
    repetition_time_ms: float | None
    inversion_time_ms: float | None
    flip_angle_deg: float | None
    gradient: bool
    spin: bool
    inversion: bool
    echo_planar: bool
    spoiled: bool
    refocused_3d: bool = False
    b_value_s_mm2: float | None = None


def mr_timing(header: FrameHeader, *, echo_time_ms: float | None, b_value_s_mm2: float | None) -> MrTiming:
    """Read the timing of one image; echo time and b-value of its stack override the header's."""
    sequence, variant = header.codes("ScanningSequence"), header.codes("SequenceVariant")
    pulse = header.codes("EchoPulseSequence")
    names = " ".join(header.text(key) for key in ("SequenceName", "PulseSequenceName", "SeriesDescription"))
    gradient = "GR" in sequence or "GRADIENT" in pulse or ("SE" not in sequence and bool(_GRADIENT_NAME.search(names)))
    inversion_ms = header.number("InversionTimes") or header.number("InversionTime")
    inverted = "IR" in sequence or "YES" in header.codes("InversionRecovery")
    return MrTiming(
        echo_time_ms=echo_time_ms or header.number("EffectiveEchoTime") or header.number("EchoTime"),
        repetition_time_ms=header.number("RepetitionTime"),
        inversion_time_ms=inversion_ms,
        flip_angle_deg=header.number("FlipAngle"),
        gradient=gradient,
        spin=not gradient and ("SE" in sequence or "SPIN" in pulse),
        inversion=inverted or ("MP" in variant and inversion_ms is not None),
        echo_planar="EP" in sequence or "YES" in header.codes("EchoPlanarPulseSequence"),
        spoiled="SP" in variant or "SS" not in variant,
        refocused_3d=bool(_SPIN_3D_NAME.search(names)),
        b_value_s_mm2=b_value_s_mm2 if b_value_s_mm2 is not None else header.number("DiffusionBValue"),
    )


def contrast_by_physics(t: MrTiming) -> str | None:
    """Return `flair`, `stir`, `t1`, `t2_star`, `t2`, `pd`, `dwi`, or None if the numbers are inconclusive."""
    if (t.b_value_s_mm2 or 0.0) > 50:
        return "dwi"
    if t.echo_time_ms is None or t.repetition_time_ms is None:
        return None
    if t.inversion and t.inversion_time_ms is not None:
        return _inverted(t, t.echo_time_ms, t.repetition_time_ms, t.inversion_time_ms)
    if t.gradient:
        return _gradient(t, t.echo_time_ms, t.repetition_time_ms)
    if t.spin and not t.echo_planar:
        return _spin(t.echo_time_ms, t.repetition_time_ms)
    return None


def _inverted(t: MrTiming, te_ms: float, tr_ms: float, ti_ms: float) -> str | None:
    if 1500 <= ti_ms <= 3000 and tr_ms >= 3500 and (te_ms >= 70 or t.refocused_3d):
        return "flair"
    if 90 <= ti_ms <= 250 and not t.gradient:
        return "stir"
    if t.gradient and 600 <= ti_ms <= 1200:
        return "t1"
    if not t.gradient and 500 <= ti_ms <= 1200 and te_ms < 30 and tr_ms < 3500:
        return "t1"
    return _gradient(t, te_ms, tr_ms) if t.gradient else None


def _gradient(t: MrTiming, te_ms: float, tr_ms: float) -> str | None:
    angle = t.flip_angle_deg
    if te_ms >= 15 and (t.echo_planar or (angle is not None and angle <= 40)):
        return "t2_star"
    # 3-D spoiled with short TR, or 2-D with a long one and a large angle.
    spoiled_t1 = angle is not None and ((tr_ms < 50 and angle >= 8) or (tr_ms <= 500 and angle >= 50))
    return "t1" if t.spoiled and te_ms < 10 and spoiled_t1 else None


def _spin(te_ms: float, tr_ms: float) -> str | None:
    # T1 grows with the field: at 3 T, T1-weighted TR reaches 1100 ms.
    if tr_ms < 1100 and te_ms < 30:
        return "t1"
    if tr_ms >= 2000 and te_ms >= 60:
        return "t2"
    return "pd" if tr_ms >= 1500 and te_ms < 40 else None
