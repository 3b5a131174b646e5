"""De-identify an image before export: attributes that are not on the allow-list are dropped.

A deny-list (PS3.15 table E.1-1 applied attribute by attribute) misses what it does not list: a private element, a
comment in a functional group. Here a new dataset is built from the attributes of `allow_list`, at the root and in every
item of every sequence that is kept. Each value is parsed and written again, so that nothing is smuggled through in a
value representation that does not fit. Dates and times are removed (113107 is not claimed); pixels are not touched
here.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.sr.coding import snomed_mapping
from pydicom.tag import BaseTag

from mediqa_node.dicom.deidentify import allow_list
from mediqa_node.dicom.deidentify.pseudonyms import Pseudonyms
from mediqa_node.dicom.values import items, number, numbers, text, texts
from mediqa_node.domain.implementation import IMPLEMENTATION_VERSION_NAME

METHODS = (("113100", "Basic Application Confidentiality Profile"), ("113108", "Retain Patient Characteristics Option"))
"""What is done and recorded in De-identification Method Code Sequence (0012,0064); CID 7050."""
OLDEST_DECADE = 90
_IDENTITY = ("PatientID", "IssuerOfPatientID", "StudyInstanceUID")
_WRITTEN_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_PLAIN = re.compile(r"[A-Za-z0-9 ._+\-/*:;,()#=&\[\]]{1,64}")
_LONG_NUMBER = re.compile(r"\d{6}")
_DATE = re.compile(r"(?<!\d)\d{1,4}[\W_]\d{1,2}[\W_]\d{1,4}(?!\d)")
_DAY = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(\d\d)*")
_FEWEST_DIGITS = 4
"""A shorter number is no identifier: the values of half a header would be taken for Patient ID 3 or Study ID 100."""
_COUNTED = ("Number", "Numbers", "Identifier")
_NEEDED = ("NumberOfFrames", "RescaleIntercept", "RescaleSlope", "ImagePositionPatient", "ImageOrientationPatient",
           "PixelSpacing")  # fmt: skip
"""Without these the image would be another one, so that they stay even where they equal an identifier."""
_SCHEMES = ("DCM", "SCT", "UCUM")
_WORDS = frozenset(allow_list.WORDS.split())
_COMMON = frozenset(f"{allow_list.WORDS} {allow_list.MAKERS}".upper().split())
_IDENTIFIERS = ("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "DeviceSerialNumber", "StationName",
                "InstitutionName")  # fmt: skip

_KINDS = {
    keyword: kind
    for kind in ("NUMBERS", "WORDED", "DEVICE", "UIDS", "CODED", "SEQUENCES")
    for keyword in getattr(allow_list, kind).split()
} | dict.fromkeys(allow_list.FRAME_DUMMIES, "FRAME_DUMMIES")


def deidentify(dataset: Dataset, pseudonyms: Pseudonyms) -> Dataset:
    """Return the de-identified header of an image, to which pixels can be added; the argument is not changed.

    UIDs become `2.25.<128 bit>`, Patient ID and Patient's Name the patient's key, age a decade.
    """
    result = _kept(dataset, pseudonyms, identifying_words(dataset))
    result.SOPClassUID = text(dataset, "SOPClassUID")
    result.PatientID = result.PatientName = pseudonyms.patient(patient_identity(dataset))
    if (decade := age_decade(dataset)) is not None:
        result.PatientAge = f"{decade:03}Y"
    required = dict.fromkeys(allow_list.EMPTY.split(), "")
    if "SharedFunctionalGroupsSequence" in result:
        required |= allow_list.DUMMIES
    for keyword, nothing in required.items():
        if keyword not in result:
            setattr(result, keyword, nothing)
    result.PatientIdentityRemoved = "YES"
    result.LongitudinalTemporalInformationModified = "REMOVED"
    result.DeidentificationMethod = f"{IMPLEMENTATION_VERSION_NAME} allow-list"
    result.DeidentificationMethodCodeSequence = Sequence([_code(value, "DCM", meaning) for value, meaning in METHODS])
    return result


def patient_identity(dataset: Dataset) -> dict[str, str]:
    """Return the identity that `Pseudonyms.patient` takes."""
    return {keyword: text(dataset, keyword) for keyword in _IDENTITY}


def age_decade(dataset: Dataset) -> int | None:
    """Return the decade of the patient's age in years, 90 for all above (45 CFR 164.514(b)(2)(i)(C)), or None.

    From Patient's Age (0010,1010), else from birth date and study date.
    """
    stated = re.fullmatch(r"(\d{3})([DWMY])", text(dataset, "PatientAge"))
    if stated:
        years = int(stated.group(1)) if stated.group(2) == "Y" else 0
    else:
        born, taken = text(dataset, "PatientBirthDate"), text(dataset, "StudyDate")
        if not re.fullmatch(r"\d{8}", born) or not re.fullmatch(r"\d{8}", taken):
            return None
        years = (int(taken) - int(born)) // 10_000
    return min(years // 10 * 10, OLDEST_DECADE) if 0 <= years < 150 else None


def clean_text(keyword: str, value: str, forbidden: frozenset[str]) -> str | None:
    r"""Return a text if it may be exported, else None.

    Args:
        keyword: of its attribute; decides which filter applies.
        value: values joined by a backslash.
        forbidden: words of `identifying_words`.
    """
    kind = _KINDS.get(keyword)
    if kind == "DEVICE":
        return value if all(_is_device_text(part, forbidden) for part in value.split("\\")) else None
    if kind == "WORDED":
        parts = [part if _is_worded(part, forbidden) else "OTHER" for part in value.split("\\")]
        return None if set(parts) == {"OTHER"} else "\\".join(parts)
    return None


def identifying_words(dataset: Dataset) -> frozenset[str]:
    """Return words and numbers that identify patient, study or place, upper case, numbers without leading zeros.

    They come from all person names, even where a name is also an ordinary word (SHARP is a kernel and a family name);
    from the identifiers of patient, study, device and place, except common words (CHEST_0042, General Hospital); and
    from the birth date. Words of one or two letters and numbers of fewer than four digits are left out: they occur in
    every header and identify no one.
    """
    found = set()
    for found_text, is_name in _identifying(dataset):
        tokens = _tokens(found_text) if is_name else _tokens(found_text) - _COMMON
        found |= tokens if is_name else tokens | _tokens(re.sub(r"\D", "", found_text))
    born = re.fullmatch(r"(\d{4})(\d\d)(\d\d)", text(dataset, "PatientBirthDate"))
    if born:
        year, month, day = born.groups()
        found |= _tokens(f"{year}{month}{day} {day}{month}{year} {month}{day}{year}")
    return frozenset(found)


def _tokens(value: str) -> set[str]:
    """Return the words of a text and the runs of letters and digits in them, if long enough."""
    runs = {run for pattern in (r"[^\W_]+", r"[^\W\d_]+", r"\d+") for run in re.findall(pattern, value.upper())}
    runs = {run.lstrip("0") if run.isdecimal() else run for run in runs}
    return {run for run in runs if len(run) >= (_FEWEST_DIGITS if run.isdecimal() else 3)}


def _identifying(dataset: Dataset) -> Iterator[tuple[str, bool]]:
    """Yield texts that identify a person or place, and whether each is a person's name."""
    for tag in tuple(dataset.keys()):
        if tag.is_private:
            continue
        vr = _vr(tag)
        if vr == "SQ":
            for item in items(dataset, tag):
                yield from _identifying(item)
        elif vr == "PN" or keyword_for_tag(tag) in _IDENTIFIERS:
            yield text(dataset, tag), vr == "PN"


def _kept(dataset: Dataset, pseudonyms: Pseudonyms, forbidden: frozenset[str]) -> Dataset:
    result = Dataset()
    for tag in sorted(dataset.keys()):
        keyword = keyword_for_tag(tag)
        kind = None if tag.is_private else _KINDS.get(keyword)
        if kind is None:
            continue
        value = _value(dataset, tag, keyword, kind, pseudonyms, forbidden)
        if value is not None:
            result.add_new(tag, _written_vr(dataset, tag), value)
    return result


def _value(
    dataset: Dataset, tag: BaseTag, keyword: str, kind: str, pseudonyms: Pseudonyms, forbidden: frozenset[str]
) -> Any:
    """Return the exported value of one attribute, or None to drop it."""
    if kind == "SEQUENCES":
        kept = [_kept(item, pseudonyms, forbidden) for item in items(dataset, tag)]
        return Sequence(kept) if any(kept) else None
    if kind == "CODED":
        return Sequence(found) if (found := [c for item in items(dataset, tag) if (c := _coded(item))]) else None
    if kind == "UIDS":
        return [pseudonyms.uid(uid) for uid in texts(dataset, tag)] or None
    if kind == "FRAME_DUMMIES":
        return allow_list.FRAME_DUMMIES[keyword]
    if kind == "NUMBERS":
        return _numbers(dataset, tag, keyword, forbidden)
    cleaned = clean_text(keyword, text(dataset, tag), forbidden)
    return cleaned.split("\\") if cleaned else ""


def _numbers(dataset: Dataset, tag: BaseTag, keyword: str, forbidden: frozenset[str]) -> Any:
    """Return numbers with the digits of the source; none unless every value is a number.

    None are returned either if one may be identifying: it is one of `identifying_words`, looks like a date, or is a
    count as long as a date.
    """
    try:
        value = dataset[tag].value
    except Exception:  # pydicom may raise anything on broken values
        return None
    values = [value] if isinstance(value, str | int | float) else list(value or ())
    if _vr(tag) in ("DS", "IS"):
        written = [str(one).strip() for one in values]
        if keyword in _NEEDED and not all(map(_WRITTEN_NUMBER.fullmatch, written)):
            read = [f"{one:.10g}" for one in numbers(dataset, tag, signed=True)]  # "-1024,0", VR UT
            written = read if len(read) == len("\\".join(written).split("\\")) else written
        if not all(map(_WRITTEN_NUMBER.fullmatch, written)):
            return None
        if keyword not in _NEEDED and any(_identifies(one, keyword, forbidden) for one in written):
            return None
        return written or ""
    return values if values and all(isinstance(one, int | float) for one in values) else None


def _identifies(written: str, keyword: str, forbidden: frozenset[str]) -> bool:
    if keyword.endswith(_COUNTED) and _LONG_NUMBER.search(written):
        return True
    value = abs(float(written))
    number = f"{value:.0f}" if value.is_integer() else ""
    return number in forbidden or bool(_DAY.fullmatch(number))


def _is_worded(value: str, forbidden: frozenset[str]) -> bool:
    """Whether a text consists only of known harmless words, one or two letters, and short numbers."""
    if not _PLAIN.fullmatch(value) or _LONG_NUMBER.search(value) or _DATE.search(value):
        return False
    if _tokens(value) & forbidden:
        return False
    return all(len(run) <= 2 or run.lower() in _WORDS for run in re.findall(r"[A-Za-z]+", value))


def _is_device_text(value: str, forbidden: frozenset[str]) -> bool:
    if not _PLAIN.fullmatch(value) or _LONG_NUMBER.search(value):
        return False
    return not any(word in value.upper() for word in forbidden)


def clean_meaning(item: Dataset) -> str | None:
    """Return the meaning of a code from pydicom's dictionary, ignoring its Code Meaning; None if unknown."""
    value, scheme = _current_code(item)
    return _meanings(scheme).get(value) if scheme in _SCHEMES else None


def _coded(item: Dataset) -> Dataset | None:
    meaning = clean_meaning(item)
    return _code(*_current_code(item), meaning) if meaning else None


def _current_code(item: Dataset) -> tuple[str, str]:
    """Return value and scheme of a coded term; SNOMED RT codes become SNOMED CT (PS3.16 table 8-1)."""
    value, scheme = text(item, "CodeValue"), text(item, "CodingSchemeDesignator")
    known = snomed_mapping["SRT"].get(value) if scheme in ("SRT", "SNM3", "99SDM") else None
    return (known, "SCT") if known else (value, scheme)


@cache
def _meanings(scheme: str) -> dict[str, str]:
    return {code.value: code.meaning for code in getattr(codes, scheme).concepts.values()}


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


@cache
def _vr(tag: BaseTag) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""


def _written_vr(dataset: Dataset, tag: BaseTag) -> str:
    """Return the VR of the standard; if it allows several, the one for Pixel Representation (0028,0103)."""
    vr = _vr(tag)
    if " or " not in vr:
        return vr
    return "SS" if number(dataset, "PixelRepresentation") == 1 else "US"
