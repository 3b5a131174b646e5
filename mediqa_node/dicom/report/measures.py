"""The measurement group of physical measures: TID 1501 with one TID 300 measurement for each, and a comment on them.

What is not measurable is left out of the numbers, because readers fail on a NUM without a value, and named with its
reason in the comment, which is one of the Qualitative Evaluations: TID 1501 has no row for it. Standard uncertainty
(k = 1) is a property of its measurement (TID 310, CID 225).
"""

from collections.abc import Sequence

from pydicom import Dataset

from mediqa_node.dicom.report import codes, measure_codes
from mediqa_node.dicom.report.items import (
    code_item,
    container,
    image_items,
    number_item,
    text_item,
    uid_item,
)
from mediqa_node.dicom.report.request import ReportDevice
from mediqa_node.dicom.report.uid import deterministic_uid
from mediqa_node.domain.baseline import HEADING, StandsOut, Usual, compared
from mediqa_node.domain.measures import Measure, MeasuredStack, Validity
from mediqa_node.domain.quantities import QUANTITIES, decimals

ALGORITHM = "MedIQA measures"
LABEL = "IQA measures"
_LONGEST_DECIMAL = 16


def measure_group(
    measured: MeasuredStack,
    device: ReportDevice,
    site: codes.Code,
) -> Dataset:
    """Return the group of a series' measures; a `site` in the body that is unknown is left out."""
    tracking = deterministic_uid(
        "tracking", measured.study_instance_uid, measured.series_instance_uid, device.device_uid, LABEL
    )
    known = [one for one in measured.measures if one.name in QUANTITIES and one.value is not None]
    items = [
        text_item("HAS OBS CONTEXT", codes.TRACKING_ID, LABEL),
        uid_item("HAS OBS CONTEXT", codes.TRACKING_UID, tracking),
        code_item("CONTAINS", codes.FINDING, codes.IMAGE_QUALITY),
        *([] if site == codes.UNKNOWN else [code_item("HAS CONCEPT MOD", codes.FINDING_SITE, site)]),
        text_item("HAS CONCEPT MOD", codes.ALGORITHM_NAME, ALGORITHM),
        text_item("HAS CONCEPT MOD", codes.ALGORITHM_VERSION, device.software_version),
        text_item("HAS CONCEPT MOD", codes.ALGORITHM_PARAMETERS, _parameters(known)),
        *map(_measurement, known),
        *_dose(measured),
        *image_items(codes.SOURCE_OF_MEASUREMENT, measured.frames),
    ]
    return container(codes.GROUP, items, template="1501")


def measures_comment(
    measured: MeasuredStack, usual: dict[str, Usual], standing_out: Sequence[StandsOut]
) -> list[Dataset]:
    """Return what is usual, limited and not measurable as one text; nothing where there is nothing to say.

    Args:
        usual: usual values by name, of the site's approved baseline.
        standing_out: left out here, because the comment of the report names them.
    """
    shown = {one.measure.name for one in standing_out}
    parts = [
        f"{QUANTITIES[one.name].title}: {compared(one, usual[one.name])}."
        for one in measured.measures
        if one.name in usual and one.value is not None and one.name not in shown
    ]
    for validity in (Validity.LIMITED, Validity.NOT_MEASURABLE):
        ones = [one for one in measured.measures if one.validity is validity and one.name in QUANTITIES]
        if ones:
            reasons = (f"{QUANTITIES[one.name].title} ({one.reason})" for one in ones)
            parts.append(f"{validity.capitalize()}: {'; '.join(reasons)}.")
    return [text_item("CONTAINS", measure_codes.COMMENT, " ".join(parts))] if parts else []


def in_words(standing_out: Sequence[StandsOut]) -> str:
    """Return what stands out as one sentence; "" for nothing."""
    return f"{HEADING}: {'; '.join(one.in_words() for one in standing_out)}." if standing_out else ""


def _measurement(one: Measure) -> Dataset:
    assert one.value is not None
    unit = measure_codes.unit(one)
    places = decimals(QUANTITIES[one.name], one.uncertainty)
    text = _decimal(one.value, places)
    item = number_item("CONTAINS", measure_codes.concept(one.name), text, unit, exact=one.value)
    content = []
    if one.validity is Validity.LIMITED:
        content.append(code_item("HAS CONCEPT MOD", measure_codes.VALIDITY, measure_codes.LIMITED))
    content.append(code_item("HAS CONCEPT MOD", measure_codes.METHOD, measure_codes.method(one)))
    if (derivation := measure_codes.DERIVATIONS.get(QUANTITIES[one.name].statistic)) is not None and one.n > 1:
        content.append(code_item("HAS CONCEPT MOD", codes.DERIVATION, derivation))
    if one.uncertainty is not None:
        text = _decimal(one.uncertainty, places)
        error = number_item("HAS PROPERTIES", measure_codes.UNCERTAINTY, text, unit, exact=one.uncertainty)
        content.append(error)
    item.ContentSequence = content
    return item


def _parameters(known: Sequence[Measure]) -> str:
    """Return the version of each method, and how many slices were measured."""
    return "method versions and slices: " + ", ".join(f"{one.name} v{one.method.version} n={one.n}" for one in known)


def _dose(measured: MeasuredStack) -> list[Dataset]:
    """Return CTDIvol and its phantom as recorded, which the size-specific dose estimate rests on."""
    if measured.ctdi_vol_mgy is None or measured.measure("ct.ssde") is None:
        return []
    dose, milligray = measured.ctdi_vol_mgy, codes.Code("mGy", "UCUM", "milligray")
    item = number_item("CONTAINS", measure_codes.MEAN_CTDI, _decimal(dose, 2), milligray, exact=dose)
    phantom = measure_codes.CTDI_PHANTOMS.get(int(measured.ctdi_phantom_cm or 0))
    if phantom is not None:
        item.ContentSequence = [code_item("HAS CONCEPT MOD", measure_codes.CTDI_PHANTOM, phantom)]
    return [item]


def _decimal(value: float, places: int) -> str:
    """Return Numeric Value (0040,A30A) for people, at most 16 characters; Floating Point Value has all digits."""
    text = f"{value:.{places}f}"
    return text if len(text) <= _LONGEST_DECIMAL else f"{value:.8g}"
