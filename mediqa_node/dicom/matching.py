"""What rules look at: the values of a header, parsed or still encoded, and which attributes a rule may name.

A rule on a series may look at what all its instances share (the modules of PS3.3 C.7.1 to C.7.5.1 and a few attributes
of CT and MR that describe the protocol); a rule on an instance at any public attribute of the top level that is text or
a number.
"""

import re
import struct
from collections.abc import Iterable, Mapping
from datetime import date
from functools import lru_cache

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword

from mediqa_node.dicom import character_sets
from mediqa_node.dicom.identity import CHARACTER_SET
from mediqa_node.dicom.values import texts
from mediqa_node.domain.match import Facts, InstanceMatch, Match

SERIES_KEYWORDS = frozenset({
    "AccessionNumber", "AdmittingDiagnosesDescription", "BodyPartExamined", "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSponsorName", "ConvolutionKernel",
    "DeviceSerialNumber", "GantryID", "InstitutionAddress", "InstitutionName", "InstitutionalDepartmentName",
    "IssuerOfPatientID", "Laterality", "MagneticFieldStrength", "Manufacturer", "ManufacturerModelName", "Modality",
    "MRAcquisitionType", "OperatorsName", "PatientBirthDate", "PatientComments", "PatientID", "PatientName",
    "PatientPosition", "PatientSex", "PatientSize", "PatientSpeciesDescription", "PatientWeight",
    "PerformedProcedureStepDescription", "PerformedProcedureStepID", "PerformedStationAETitle",
    "PerformingPhysicianName", "ProtocolName", "ReferringPhysicianName", "ScanningSequence", "SequenceVariant",
    "SeriesDate", "SeriesDescription", "SeriesNumber", "SoftwareVersions", "StationName", "StudyDate",
    "StudyDescription", "StudyID", "StudyTime", "TimezoneOffsetFromUTC",
})  # fmt: skip
"""The attributes that a rule on a series may name."""

_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_TEXTS = frozenset(re.findall("..", "AEASCSDADSDTISLOLTPNSHSTTMUCUIURUT"))
_UNSPLIT = frozenset(("ST", "LT", "UT", "UR"))
_IN_CHARACTER_SET = frozenset(("SH", "LO", "UC", "ST", "LT", "UT", "PN"))


def check_keywords(rule: Match) -> None:
    """Refuse a rule that names an attribute it may not look at.

    Raises:
        ValueError: no such keyword, a sequence or binary attribute, or one that differs between the images of a series.
    """
    for keyword in rule.attributes:
        if tag_for_keyword(keyword) is None:
            raise ValueError(f"attributes: {keyword!r} is no keyword of a DICOM attribute (PS3.6)")
        vr = _vr(keyword)
        if vr not in _TEXTS and vr not in _NUMBERS:
            raise ValueError(f"attributes: {keyword} is {vr}: only text and numbers can be compared")
        if not isinstance(rule, InstanceMatch) and keyword not in SERIES_KEYWORDS:
            raise ValueError(
                f"attributes: {keyword} may differ between the images of a series: only `forward` can look at it"
            )


@lru_cache(maxsize=512)
def tag_of(keyword: str) -> int:
    """Return the tag of a keyword of the data dictionary."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword!r} is no keyword of a DICOM attribute")
    return tag


@lru_cache(maxsize=512)
def _vr(keyword: str) -> str:
    return dictionary_VR(tag_of(keyword)).partition(" or ")[0]


def facts_of(
    header: Dataset, keywords: Iterable[str], *, senders: tuple[str, ...], called: str = "", today: date
) -> Facts:
    """Return the facts of a parsed header; no value of it is changed.

    Args:
        keywords: of the attributes that the rules look at.
        senders: calling AE title and the name of its peer.
        today: what the age of the study counts to.
    """
    values = {keyword: found for keyword in keywords if (found := tuple(filter(None, texts(header, keyword))))}
    return _facts(values, senders, called, today)


def facts_of_elements(
    found: Mapping[int, bytes],
    keywords: Iterable[str],
    *,
    is_little_endian: bool,
    senders: tuple[str, ...],
    called: str,
    today: date,
) -> Facts:
    """Return the facts from encoded values by tag, as the receiver scans them; see `facts_of`."""
    character_set = found.get(CHARACTER_SET, b"")
    values = {
        keyword: decoded
        for keyword in keywords
        if (raw := found.get(tag_of(keyword))) and (decoded := _decoded(raw, keyword, character_set, is_little_endian))
    }
    return _facts(values, senders, called, today)


def _facts(values: dict[str, tuple[str, ...]], senders: tuple[str, ...], called: str, today: date) -> Facts:
    age = _age_days(values["StudyDate"][0], today) if "StudyDate" in values else None
    return Facts(senders=senders, called=called, values=values, study_age_days=age)


@lru_cache(maxsize=1024)
def _age_days(study_date: str, today: date) -> float | None:
    try:
        return float((today - date.fromisoformat(study_date[:8])).days)
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def _decoded(raw: bytes, keyword: str, character_set: bytes, is_little_endian: bool) -> tuple[str, ...]:
    vr = _vr(keyword)
    if vr in _NUMBERS:
        return _numbers(raw, _NUMBERS[vr], is_little_endian=is_little_endian)
    text = raw.decode("latin-1")
    if vr in _IN_CHARACTER_SET and not (raw.isascii() and b"\x1b" not in raw):
        try:
            text, _ = character_sets.decoded(raw, character_set.strip(b" \0").decode("latin-1"))
        except Exception:  # pydicom may raise anything for an unknown character set
            text = raw.decode("latin-1")
    parts = (text,) if vr in _UNSPLIT else text.split("\\")
    return tuple(value for part in parts if (value := part.strip(" \0")))


def _numbers(raw: bytes, code: str, *, is_little_endian: bool) -> tuple[str, ...]:
    one = struct.Struct(("<" if is_little_endian else ">") + code)
    whole = len(raw) - len(raw) % one.size
    return tuple(f"{number:.12g}" for (number,) in one.iter_unpack(raw[:whole]))
