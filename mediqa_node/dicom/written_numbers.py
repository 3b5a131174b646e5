"""Read the numbers in a text as a person would, and none where they may mean two things.

A comma may be decimal ("0,488") or separate thousands ("-1,024"); a unit after a number may be another than that of
the element ("0.05 cm").
"""

import math
import re
from collections.abc import Iterator, Mapping

from pydicom.datadict import dictionary_keyword
from pydicom.tag import BaseTag

PADDING = "\0 \t\r\n"
_NUMBER = re.compile(r"([-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][-+]?\d+)?)\s*(.*)", re.DOTALL)
_PERHAPS_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}(?!\d)")

_MILLIMETRES, _MILLISECONDS, _SECONDS = ("mm",), ("ms", "msec"), ("s", "sec")
_UNITS: Mapping[str, tuple[str, ...]] = {
    "KVP": ("kv", "kvp"),
    "Exposure": ("mas",), "ExposureInmAs": ("mas",), "ExposureInuAs": ("uas", "\u00b5as", "\u03bcas"),
    "XRayTubeCurrent": ("ma",), "XRayTubeCurrentInmA": ("ma",), "XRayTubeCurrentInuA": ("ua", "\u00b5a", "\u03bca"),
    "ExposureTime": _MILLISECONDS, "ExposureTimeInms": _MILLISECONDS, "ExposureTimeInuS": ("us", "\u00b5s", "\u03bcs"),
    "RepetitionTime": _MILLISECONDS, "EchoTime": _MILLISECONDS, "EffectiveEchoTime": _MILLISECONDS,
    "InversionTime": _MILLISECONDS, "InversionTimes": _MILLISECONDS, "TriggerTime": _MILLISECONDS,
    "RevolutionTime": _SECONDS, "AcquisitionDuration": _SECONDS,
    "MagneticFieldStrength": ("t", "tesla"), "ImagingFrequency": ("mhz",), "TransmitterFrequency": ("mhz",),
    "PixelSpacing": _MILLIMETRES, "SliceThickness": _MILLIMETRES, "SpacingBetweenSlices": _MILLIMETRES,
    "ImagePositionPatient": _MILLIMETRES, "SliceLocation": _MILLIMETRES, "ReconstructionDiameter": _MILLIMETRES,
    "DataCollectionDiameter": _MILLIMETRES, "TotalCollimationWidth": _MILLIMETRES,
    "SingleCollimationWidth": _MILLIMETRES, "TableFeedPerRotation": _MILLIMETRES,
    "WaterEquivalentDiameter": _MILLIMETRES,
    "RescaleIntercept": ("hu",), "WindowCenter": ("hu",), "WindowWidth": ("hu",), "CTDIvol": ("mgy",),
    "FlipAngle": ("deg", "\u00b0"), "GantryDetectorTilt": ("deg", "\u00b0"),
    "PercentSampling": ("%",), "PercentPhaseFieldOfView": ("%",), "NominalPercentageOfCardiacPhase": ("%",),
}  # fmt: skip
"""The unit of an element (PS3.3, PS3.6) as it is written after a number, in lower case."""
_UNDER_A_THOUSAND = frozenset({"PixelSpacing", "SliceThickness", "SpacingBetweenSlices"})
"""Elements that never reach a thousand, so that a comma in them is decimal."""


def written_numbers(text: str, tag: BaseTag, *, whole: bool) -> Iterator[float]:
    r"""Yield every value of a text, NaN for one that is not a number or may be one of two.

    Args:
        text: values separated by backslashes.
        tag: of the element, whose own unit may follow a number.
        whole: an Integer String, in which no comma is decimal.

    >>> [*written_numbers(r"-1024,0\120 kV\1,024.5\1 024", BaseTag(0x00180060), whole=False)]
    [-1024.0, 120.0, nan, nan]
    >>> [*written_numbers("-1,024", BaseTag(0x00281052), whole=False)]
    [nan]
    """
    filled = text.rstrip(PADDING + "\\")
    if not filled:
        return
    parts = [part.strip(PADDING) for part in filled.split("\\")]
    keyword = _keyword(tag)
    decimal = not whole and (
        keyword in _UNDER_A_THOUSAND or any("," in part and not _PERHAPS_THOUSANDS.match(part) for part in parts)
    )
    for part in parts:
        match = _NUMBER.fullmatch(part)
        unclear = "," in part and (whole or not decimal)
        if match is None or unclear or (match[2] and match[2].strip("[]()").lower() not in _UNITS.get(keyword, ())):
            yield math.nan
        else:
            yield float(match[1].replace(",", "."))


def _keyword(tag: BaseTag) -> str:
    try:
        return dictionary_keyword(tag)
    except KeyError:
        return ""
