"""All codes that a report may contain, including those of prompt words.

DCM, SCT, LN, UMLS and UCUM codes are those of PS3.16 and its context groups. 99MEDIQA is for concepts without a
standard code: a score in 0..1, the weight of a slice, predicted values, image types. Its values never change meaning; a
new meaning gets a new value.
"""

from typing import NamedTuple


class Code(NamedTuple):
    """A coded entry, PS3.3 section 8: Code Value <= 16, Code Meaning <= 64 characters."""

    value: str
    scheme: str
    meaning: str


PRIVATE_SCHEME = "99MEDIQA"
PRIVATE_SCHEME_UID = "2.25.91346023183340212208146519012736284593"
PRIVATE_SCHEME_VERSION = "1"


def _dcm(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning)


def _own(value: str, meaning: str) -> Code:
    return Code(value, PRIVATE_SCHEME, meaning)


# TID 1500 and its included templates
REPORT = _dcm("126000", "Imaging Measurement Report")
LANGUAGE = _dcm("121049", "Language of Content Item and Descendants")
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
OBSERVER_TYPE = _dcm("121005", "Observer Type")
DEVICE = _dcm("121007", "Device")
DEVICE_UID = _dcm("121012", "Device Observer UID")
DEVICE_NAME = _dcm("121013", "Device Observer Name")
DEVICE_MANUFACTURER = _dcm("121014", "Device Observer Manufacturer")
DEVICE_MODEL = _dcm("121015", "Device Observer Model Name")
DEVICE_SERIAL = _dcm("121016", "Device Observer Serial Number")
PROCEDURE_REPORTED = _dcm("121058", "Procedure reported")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
COMMENT = _dcm("121106", "Comment")
ACQUISITION_EQUIPMENT = _dcm("109101", "Acquisition Equipment")

# TID 1600
IMAGE_LIBRARY = _dcm("111028", "Image Library")
LIBRARY_GROUP = _dcm("126200", "Image Library Group")
MODALITY = _dcm("121139", "Modality")
STUDY_DATE = _dcm("111060", "Study Date")
FRAME_OF_REFERENCE = _dcm("112227", "Frame of Reference UID")
ROWS = _dcm("110910", "Pixel Data Rows")
COLUMNS = _dcm("110911", "Pixel Data Columns")
EXPOSURE = _dcm("113736", "Exposure")
FIELD_STRENGTH = _dcm("130542", "Magnetic field strength")
SOURCE = Code("260753009", "SCT", "Source")

# TID 1501 and 4019
MEASUREMENTS = _dcm("126010", "Imaging Measurements")
GROUP = _dcm("125007", "Measurement Group")
TRACKING_ID = _dcm("112039", "Tracking Identifier")
TRACKING_UID = _dcm("112040", "Tracking Unique Identifier")
FINDING = _dcm("121071", "Finding")
IMAGE_QUALITY = _dcm("111101", "Image Quality")
FINDING_SITE = Code("363698007", "SCT", "Finding Site")
ALGORITHM_NAME = _dcm("111001", "Algorithm Name")
ALGORITHM_VERSION = _dcm("111003", "Algorithm Version")
ALGORITHM_PARAMETERS = _dcm("111002", "Algorithm Parameters")
RATING = _dcm("111029", "Image Quality Rating")
DERIVATION = _dcm("121401", "Derivation")
ESTIMATED = Code("414135002", "SCT", "Estimated")
SOURCE_OF_MEASUREMENT = _dcm("121112", "Source of Measurement")

QUALITY_ASSESSMENT = _dcm("111050", "Quality Assessment")
MEETS = _dcm("111237", "Usable - Meets the quality control standard")
DOES_NOT_MEET = _dcm("111236", "Usable - Does not meet the quality control standard")
QUALITY_STANDARD = _dcm("111051", "Quality Control Standard")
INSTITUTIONAL = _dcm("111240", "Institutionally defined quality control standard")

# Concepts without a standard code
SCORE = _own("IQA-Q", "Overall image quality score Q")
SLICE_WEIGHT = _own("IQA-W", "Slice weight")
PREDICTED = {"mas": _own("IQA-PMAS", "Predicted exposure"), "tesla": _own("IQA-PB0", "Predicted field strength")}
CALIBRATION = _own("IQA-CAL", "Calibration of the rating")
UNCALIBRATED = _own("IQA-CAL-0", "Uncalibrated, no verdict")
OUTSIDE_RANGE = _own("IQA-CAL-1", "Outside the training range, no verdict")
TIMES_LIMIT = _own("IQA-RANGE", "Distance over the limit of the training range")
ACTION = _own("IQA-ACT", "Suggested acquisition action")
PREDICTED_DIMENSION = _own("IQA-PDIM", "Predicted image dimension")
PREDICTED_MODALITY = _own("IQA-PMOD", "Predicted modality")
PREDICTED_REGION = _own("IQA-PREG", "Predicted body region")
PREDICTED_TYPE = _own("IQA-PTYP", "Predicted image type")

VERDICTS = {
    "acceptable": (MEETS, _own("IQA-ACT-1", "Acceptable")),
    "borderline": (MEETS, _own("IQA-ACT-2", "Borderline, review by technologist")),
    "review": (DOES_NOT_MEET, _own("IQA-ACT-3", "Review before patient leaves")),
}
"""Quality Assessment (CID 6044) and action of each verdict; 111235 "Unusable" is reserved for human readers."""

# TID 2010, titles of CID 7010 and 7031
REJECTED_FOR_QUALITY = _dcm("113001", "Rejected for Quality Reasons")
REJECTED_FOR_SAFETY = _dcm("113037", "Rejected for Patient Safety Reasons")
INCORRECT_WORKLIST_ENTRY = _dcm("113038", "Incorrect Modality Worklist Entry")
KEY_OBJECT_DESCRIPTION = _dcm("113012", "Key Object Description")

# Units, UCUM
PERCENT_RANGE = Code("{0:100}", "UCUM", "range:0:100")
UNIT_RANGE = Code("{0:1}", "UCUM", "range:0:1")
PIXELS = Code("{pixels}", "UCUM", "pixels")
NO_UNITS = Code("1", "UCUM", "no units")
UNITS = {"mA.s": Code("mA.s", "UCUM", "mA.s"), "T": Code("T", "UCUM", "T"), "{0:1}": UNIT_RANGE}

# Words of the prompts
UNKNOWN = Code("261665006", "SCT", "Unknown")
DIMENSIONS = {"2D": _dcm("112188", "Two-dimensional method"), "3D": _dcm("112189", "Three-dimensional method")}
MODALITIES = {
    "CT": _dcm("CT", "Computed Tomography"),
    "MR": _dcm("MR", "Magnetic Resonance"),
    "OP": _dcm("OP", "Ophthalmic Photography"),
}
REGIONS = {
    "unknown": UNKNOWN,
    "head": Code("69536005", "SCT", "Head"),
    "brain": Code("12738006", "SCT", "Brain"),
    "neck": Code("45048000", "SCT", "Neck"),
    "chest": Code("816094009", "SCT", "Chest"),
    "breast": Code("76752008", "SCT", "Breast"),
    "heart": Code("80891009", "SCT", "Heart"),
    "abdomen": Code("818981001", "SCT", "Abdomen"),
    "pelvis": Code("816092008", "SCT", "Pelvis"),
    "spine": Code("421060004", "SCT", "Spine"),
    "extremity": Code("66019005", "SCT", "Extremity"),
    "retina": Code("5665001", "SCT", "Retina"),
}
TYPES = {
    "unknown": UNKNOWN,
    "lung": _own("IQA-T-CTLUNG", "CT lung window"),
    "soft": _own("IQA-T-CTSOFT", "CT soft tissue window"),
    "bone": _own("IQA-T-CTBONE", "CT bone window"),
    "t1": _dcm("110804", "T1 Weighted MR Signal Intensity"),
    "t2": _dcm("110805", "T2 Weighted MR Signal Intensity"),
    "t2_star": _dcm("110806", "T2* Weighted MR Signal Intensity"),
    "pd": _dcm("110803", "Proton Density Weighted MR Signal Intensity"),
    "dwi": _dcm("113043", "Diffusion weighted"),
    "flair": _own("IQA-T-FLAIR", "FLAIR MR image"),
    "stir": _own("IQA-T-STIR", "STIR MR image"),
    "cfp": _own("IQA-T-CFP", "Colour fundus photograph"),
}
PROCEDURES = {
    "CT": Code("25045-6", "LN", "CT unspecified body region"),
    "MR": Code("25056-3", "LN", "MRI unspecified body region"),
}
OTHER_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
"""Procedure reported, CID 100."""
