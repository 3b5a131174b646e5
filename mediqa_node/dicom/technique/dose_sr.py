"""Read CT irradiation events from a radiation dose report, to back-fill and cross-check tube charge.

A CT dose report (PS3.16 TID 10011 CT Radiation Dose, TID 10013 CT Irradiation Event Data) states, per irradiation
event, what the scanner did: mean and maximum tube current, exposure time per rotation, pitch, CTDIvol and DLP. Scanners
write it as X-Ray Radiation Dose SR, older ones as Enhanced or Comprehensive SR. Images name their event in Irradiation
Event UID (0008,3010). Some scanners write the right meaning with a wrong code, others the reverse, so either is
accepted, the code first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from pydicom import Dataset

from mediqa_node.dicom.header import items, number, text
from mediqa_node.dicom.technique.ctdi_phantom import phantom_cm
from mediqa_node.dicom.technique.units import Quantity, converted

RADIATION_DOSE_SR = "1.2.840.10008.5.1.4.1.1.88.67"
DOSE_REPORTS = frozenset({
    RADIATION_DOSE_SR,
    "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
    "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
    "1.2.840.10008.5.1.4.1.1.88.35",  # Extensible SR
})  # fmt: skip
"""SOP classes in which a dose report may be written."""

# Concepts of TID 10013 and its included templates: code value (scheme DCM) and meaning, PS3.16 annex D.
_EVENT = ("113819", "ct acquisition")
_EVENT_UID = ("113769", "irradiation event uid")
_MEAN_CURRENT = ("113734", "x-ray tube current")
_MAXIMUM_CURRENT = ("113833", "maximum x-ray tube current")
_ROTATION_TIME = ("113834", "exposure time per rotation")
_PITCH = ("113828", "pitch factor")
_KVP = ("113733", "kvp")
_COLLIMATION = ("113827", "nominal total collimation width")
_CTDI_VOL = ("113830", "mean ctdivol")
_DLP = ("113838", "dlp")
_SOURCE = ("113831", "ct x-ray source parameters")
_PHANTOM = ("113835", "ctdiw phantom type")
_EXPOSURE = ("113736", "exposure")
_LIMITS = {
    "tube_current_ma": (1.0, 2000.0), "tube_current_max_ma": (1.0, 2000.0), "rotation_time_s": (0.05, 60.0),
    "pitch": (0.05, 10.0), "kvp_kv": (40.0, 160.0),
}  # fmt: skip
"""What a CT scanner can do; a number beyond is in another unit than it states."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoseEvent:
    """One irradiation event of a CT dose report; None where absent.

    Attributes:
        tube_current_ma: mean over the event, mA; `tube_current_max_ma` its maximum.
        rotation_time_s: exposure time per rotation, s.
        pitch: table feed per rotation over total collimation, dimensionless.
        ctdi_vol_mgy: mean CTDIvol, mGy, in the phantom of `ctdi_phantom`.
        ctdi_phantom: as the report words it; `ctdi_phantom_code` its code, `ctdi_phantom_cm` 16 or 32 for the two IEC
            phantoms and None for any other.
        dlp_mgy_cm: dose length product, mGy cm.
        exposure_mas: tube charge as the report states it, mA.s.
        n_sources: X-ray sources that fired; with more than one, no tube charge is derived.
        flags: `dose_unit:<field>` for each value that is left out, because its unit is unknown or does not fit;
            `dose_range:<field>` where no scanner can have done what it states.
    """

    irradiation_event_uid: str
    tube_current_ma: float | None = None
    tube_current_max_ma: float | None = None
    rotation_time_s: float | None = None
    pitch: float | None = None
    kvp_kv: float | None = None
    total_collimation_mm: float | None = None
    ctdi_vol_mgy: float | None = None
    ctdi_phantom: str = ""
    ctdi_phantom_code: str = ""
    ctdi_phantom_cm: int | None = None
    dlp_mgy_cm: float | None = None
    exposure_mas: float | None = None
    n_sources: int = 1
    flags: Sequence[str] = ()

    @property
    def tube_charge_mas(self) -> float | None:
        """Mean effective tube charge, mAs: mA x s per rotation / pitch; pitch 1 if there is none (axial).

        None if one of the three was left out.
        """
        if self.tube_current_ma is None or self.rotation_time_s is None or self.n_sources > 1:
            return None
        if any(flag.endswith(":pitch") for flag in self.flags):
            return None
        return self.tube_current_ma * self.rotation_time_s / (self.pitch or 1.0)


def dose_events(ds: Dataset) -> tuple[DoseEvent, ...]:
    """Return the CT irradiation events of a dose report, in its order.

    Args:
        ds: a radiation dose SR; anything else has no events.

    Returns:
        () if the object is not a dose report or has no event UID.
    """
    if text(ds, "SOPClassUID") not in DOSE_REPORTS:
        return ()
    events = (_event(item) for item in _descendants(ds) if _is(item, _EVENT))
    return tuple(event for event in events if event is not None)


def _event(acquisition: Dataset) -> DoseEvent | None:
    content = tuple(_descendants(acquisition))
    uid = next((text(item, "UID") for item in _matching(content, _EVENT_UID)), "")
    if not uid:
        return None
    flags: list[str] = []
    value = partial(_value, content, flags)
    phantom = _coded(content, _PHANTOM)
    return DoseEvent(
        irradiation_event_uid=uid,
        tube_current_ma=value("tube_current_ma", _MEAN_CURRENT, Quantity.CURRENT_MA),
        tube_current_max_ma=value("tube_current_max_ma", _MAXIMUM_CURRENT, Quantity.CURRENT_MA),
        rotation_time_s=value("rotation_time_s", _ROTATION_TIME, Quantity.TIME_S),
        pitch=value("pitch", _PITCH, Quantity.RATIO),
        kvp_kv=value("kvp_kv", _KVP, Quantity.VOLTAGE_KV),
        total_collimation_mm=value("total_collimation_mm", _COLLIMATION, Quantity.LENGTH_MM),
        ctdi_vol_mgy=value("ctdi_vol_mgy", _CTDI_VOL, Quantity.DOSE_MGY),
        ctdi_phantom=text(phantom, "CodeMeaning"),
        ctdi_phantom_code=text(phantom, "CodeValue"),
        ctdi_phantom_cm=phantom_cm(phantom),
        dlp_mgy_cm=value("dlp_mgy_cm", _DLP, Quantity.DOSE_LENGTH_MGY_CM),
        exposure_mas=value("exposure_mas", _EXPOSURE, Quantity.CHARGE_MAS),
        n_sources=max(1, len(_matching(content, _SOURCE))),
        flags=tuple(flags),
    )


def _descendants(ds: Dataset) -> Iterator[Dataset]:
    """Yield the items of the content tree depth first, without its root."""
    for item in items(ds, "ContentSequence"):
        yield item
        yield from _descendants(item)


def _coded(content: tuple[Dataset, ...], concept: tuple[str, str]) -> Dataset:
    """Return the code that the first item of a concept holds; an empty one without any."""
    codes = (code for item in _matching(content, concept) for code in items(item, "ConceptCodeSequence"))
    return next(codes, Dataset())


def _is(item: Dataset, concept: tuple[str, str]) -> bool:
    return bool(_matching((item,), concept))


def _matching(content: tuple[Dataset, ...], concept: tuple[str, str]) -> tuple[Dataset, ...]:
    """Return the items with the code as concept name; if there are none, those with the meaning."""
    code, meaning = concept
    names = [(item, name) for item in content for name in items(item, "ConceptNameCodeSequence")[:1]]
    by_code = tuple(item for item, name in names if text(name, "CodeValue") == code)
    return by_code or tuple(item for item, name in names if text(name, "CodeMeaning").lower() == meaning)


def _value(
    content: tuple[Dataset, ...], flags: list[str], field: str, concept: tuple[str, str], quantity: Quantity
) -> float | None:
    """Return the first numeric value of a concept in the unit of its quantity; one that is left out is flagged."""
    found = _measured(content, concept)
    if found is None:
        return None
    value = converted(*found, quantity)
    if value is None:
        flags.append(f"dose_unit:{field}")
        return None
    low, high = _LIMITS.get(field, (0.0, float("inf")))
    if not low <= value <= high:
        flags.append(f"dose_range:{field}")
        return None
    return value


def _measured(content: tuple[Dataset, ...], concept: tuple[str, str]) -> tuple[float, str] | None:
    """Return the first numeric value of a concept and its UCUM unit."""
    for item in _matching(content, concept):
        for measured in items(item, "MeasuredValueSequence"):
            value = number(measured, "NumericValue") or number(measured, "FloatingPointValue") or _ratio(measured)
            if value is not None:
                units = items(measured, "MeasurementUnitsCodeSequence")
                return value, text(units[0], "CodeValue") if units else ""
    return None


def _ratio(measured: Dataset) -> float | None:
    parts = number(measured, "RationalNumeratorValue"), number(measured, "RationalDenominatorValue")
    return parts[0] / parts[1] if parts[0] and parts[1] else None
