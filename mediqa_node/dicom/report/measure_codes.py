"""The codes of measured quantities, their methods and units.

Standard concepts where PS3.16 has one that means the same. LOINC 96912-1 (Calculated CT global noise) is not used: it
is defined as the aggregation over a whole exam by a quality measure's own calculation, which this is not.
"""

from mediqa_node.dicom.report.codes import PRIVATE_SCHEME, Code
from mediqa_node.domain.measures import Measure
from mediqa_node.domain.quantities import HOUNSFIELD, PIXELS, QUANTITIES, SLICES

METHOD = Code("370129005", "SCT", "Measurement Method")
UNCERTAINTY = Code("371884006", "SCT", "+/-, range of measurement uncertainty")
MEAN_CTDI = Code("113830", "DCM", "Mean CTDIvol")
CTDI_PHANTOM = Code("113835", "DCM", "CTDIw Phantom Type")
CTDI_PHANTOMS = {
    16: Code("113690", "DCM", "IEC Head Dosimetry Phantom"),
    32: Code("113691", "DCM", "IEC Body Dosimetry Phantom"),
}
DERIVATIONS = {
    "median": Code("373099004", "SCT", "Median"),
    "mean": Code("373098007", "SCT", "Mean"),
}
VALIDITY = Code("IQM-VALIDITY", PRIVATE_SCHEME, "Validity of the measurement")
COMMENT = Code("IQM-COMMENT", PRIVATE_SCHEME, "Comment on the measurements")
LIMITED = Code("IQM-LIMITED", PRIVATE_SCHEME, "Limited")
_STANDARD = {
    "ct.dw": Code("113980", "DCM", "Water Equivalent Diameter"),
    "ct.lateral": Code("113931", "DCM", "Measured Lateral Dimension"),
    "ct.ap": Code("113932", "DCM", "Measured AP Dimension"),
    "ct.ssde": Code("113930", "DCM", "Size Specific Dose Estimate"),
    "mr.snr": Code("113060", "DCM", "Signal to noise"),
}
_STANDARD_METHODS = {
    "ct.dw": Code("113982", "DCM", "Water Equivalent Diameter Integrated Across Scan Range"),
    "ct.ssde": Code("113988", "DCM", "Estimated from Water Equivalent Diameter"),
}
"""CID 10024 and CID 10023."""
_OWN = {
    "ct.noise.soft": "IQM-CTNOISE",
    "ct.noise.peak_frequency": "IQM-CTNPEAK",
    "ct.truncation": "IQM-CTTRUNC",
    "ct.sharpness": "IQM-CTF50",
    "ct.figure_of_merit": "IQM-CTFOM",
    "mr.ghost_ratio": "IQM-MRGHOST",
    "mr.support.rows": "IQM-MRSUPR",
    "mr.support.columns": "IQM-MRSUPC",
    "mr.nonuniformity": "IQM-MRNONU",
    "op.field_diameter": "IQM-OPDIAM",
    "op.field_coverage": "IQM-OPCOV",
    "op.focus": "IQM-OPFOC",
    "op.illumination": "IQM-OPILL",
    "op.clipped": "IQM-OPCLIP",
    "op.vessel_contrast": "IQM-OPVES",
    "stack.missing_slices": "IQM-MISSING",
    "stack.repeated_slices": "IQM-REPEAT",
    "stack.spacing_to_thickness": "IQM-SPACING",
    "stack.burned_in_text": "IQM-TEXT",
}
_UNITS = {
    HOUNSFIELD: "Hounsfield unit",
    "mm": "millimeter",
    "/mm": "per millimeter",
    "mGy": "milligray",
    "1": "no units",
    PIXELS: "pixels",
    SLICES: "slices",
}


def concept(name: str) -> Code:
    """Return the code of a quantity of `domain.quantities`."""
    return _STANDARD.get(name) or Code(_OWN[name], PRIVATE_SCHEME, QUANTITIES[name].title)


def method(measure: Measure) -> Code:
    """Return the code of the method of a measure; a private one for each version."""
    if (standard := _STANDARD_METHODS.get(measure.name)) is not None:
        return standard
    own = _OWN.get(measure.name) or f"IQM-{measure.name.replace('.', '').upper()}"
    version = measure.method.version
    return Code(f"{own}-{version}"[:16], PRIVATE_SCHEME, f"{measure.method.name}, version {version}"[:64])


def unit(measure: Measure) -> Code:
    """Return the UCUM code of a measure's unit."""
    return Code(measure.unit, "UCUM", _UNITS.get(measure.unit, measure.unit)[:64])
