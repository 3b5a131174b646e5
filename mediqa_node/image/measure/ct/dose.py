"""Dose for the size of the patient, and the figure of merit of noise at that dose.

Method: SSDE = CTDIvol x f(Dw), `domain.size_specific_dose`, at the mean Dw; its uncertainty is that of the published
factors, 10 %, and that of Dw through the exponent. Figure of merit = 1 / (noise² x SSDE x slice thickness): it does not
change with tube current where noise is that of counted quanta, and falls with whatever wastes dose.

Sources: AAPM Reports 204 (2011) and 220 (2014, doi 10.37206/146); that noise² goes as 1 / (dose x thickness): Brooks
and Di Chiro, "Statistical limitations in x-ray reconstructive tomography", Med Phys 1976.
Assumptions: CTDIvol is the mean over the stack; SSDE stands for a scan of usual length.
What breaks it: a size outside of the tables; a scan shorter than the slice profile, whose dose SSDE overstates; for the
figure of merit, comparison beyond one class of size, kernel and reconstruction, which change noise at the same dose.
"""

import math

from mediqa_node.domain.measure_facts import CtFacts
from mediqa_node.domain.measures import Limit, Measure, Validity
from mediqa_node.domain.quantities import CT_FIGURE_OF_MERIT, CT_SSDE
from mediqa_node.domain.size_specific_dose import relative_uncertainty, size_factor


def size_specific_dose(facts: CtFacts, dw: Measure) -> Measure:
    """Return `ct.ssde` from CTDIvol, its phantom and `ct.dw`."""
    ctdi_vol_mgy = facts.dose.ctdi_vol_mgy
    if ctdi_vol_mgy is None or not (math.isfinite(ctdi_vol_mgy) and ctdi_vol_mgy > 0):
        return CT_SSDE.not_measurable(Limit.NO_DOSE)
    if dw.value is None:
        return CT_SSDE.not_measurable(dw.limit or Limit.NO_BODY, dw.detail)
    phantom_cm = facts.dose.phantom_cm
    factor = size_factor(dw.value, phantom_cm, facts.body_part)
    if isinstance(factor, Limit) or phantom_cm is None:
        reason = factor if isinstance(factor, Limit) else Limit.PHANTOM_UNKNOWN
        detail = f"Dw {dw.value:.0f} mm" if reason is Limit.SIZE_OUT_OF_RANGE else ""
        return CT_SSDE.not_measurable(reason, detail)
    ssde_mgy = ctdi_vol_mgy * factor
    return CT_SSDE.measured(
        ssde_mgy,
        n=dw.n,
        uncertainty=ssde_mgy * relative_uncertainty(phantom_cm, dw.uncertainty or 0.0),
        limit=dw.limit,
        detail=dw.detail,
    )


def figure_of_merit(noise: Measure, ssde: Measure, thickness_mm: float | None) -> Measure:
    """Return `ct.figure_of_merit` from `ct.noise.soft`, `ct.ssde` and Slice Thickness (0018,0050)."""
    if thickness_mm is None or not (math.isfinite(thickness_mm) and thickness_mm > 0):
        return CT_FIGURE_OF_MERIT.not_measurable(Limit.NO_THICKNESS)
    if not noise.value or not ssde.value:
        absent = noise if not noise.value else ssde
        return CT_FIGURE_OF_MERIT.not_measurable(Limit.PART_MISSING, f"{absent.name}: {absent.reason}")
    value = 1.0 / (noise.value**2 * ssde.value * thickness_mm)
    uncertainty = None
    if noise.uncertainty is not None and ssde.uncertainty is not None:
        uncertainty = value * math.hypot(2 * noise.uncertainty / noise.value, ssde.uncertainty / ssde.value)
    limited = next((part for part in (noise, ssde) if part.validity is not Validity.VALID), None)
    return CT_FIGURE_OF_MERIT.measured(
        value,
        n=noise.n,
        uncertainty=uncertainty,
        limit=None if limited is None else Limit.PART_MISSING,
        detail="" if limited is None else f"{limited.name}: {limited.reason}",
    )
