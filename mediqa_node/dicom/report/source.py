"""Read the header of a source image so that values copied into a report are valid.

Real headers lack type-2 elements, hold two values where one belongs, dates of one year, a sex of
`U`, or text in ISO 2022 character sets. Every function returns text that is valid in a UTF-8 dataset, or "" if the
source has nothing usable. Patient identifiers are never truncated.
"""

import re
from collections.abc import Iterable
from datetime import date, timedelta, timezone

from pydicom import Dataset
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.valuerep import PersonName

from mediqa_node.dicom.report.codes import Code
from mediqa_node.dicom.report.items import coded
from mediqa_node.dicom.values import is_misread, items, texts
from mediqa_node.domain.errors import InvalidInstance
from mediqa_node.domain.uid import is_uid

LIMITS = {"AE": 16, "CS": 16, "LO": 64, "SH": 16, "AS": 4, "DS": 16, "IS": 12, "UI": 64, "ST": 1024, "LT": 10240}
"""Characters a value representation may hold, PS3.5 table 6.2-1."""

NEVER_SHORTENED = frozenset((
    "AccessionNumber", "StudyID", "IssuerOfPatientID", "AdmissionID", "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest", "RequestedProcedureID", "ClinicalTrialProtocolID",
    "ClinicalTrialSubjectID", "LocalNamespaceEntityID", "UniversalEntityID",
))  # fmt: skip
"""Left out when too long: a shortened identifier may be that of another patient."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_DATE = re.compile(r"(\d{4})[.\-/]?(\d{2})[.\-/]?(\d{2})")
_TIME = re.compile(r"([01]\d|2[0-3]):?([0-5]\d)?:?([0-5]\d|60)?(\.\d{1,6})?")
_OFFSET = re.compile(r"([+-])(\d{2})(\d{2})")
_DECIMAL = re.compile(r"(?=.{1,16}$)[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_SEXES = {"M": "M", "F": "F", "O": "O", "MALE": "M", "FEMALE": "F", "OTHER": "O"}


def value_of(source: Dataset, keyword: str) -> str:
    """Return the first valid value of an element, or ""."""
    return next(iter(_usable(keyword, _texts(source, keyword)[:1])), "")


def values_of(source: Dataset, keyword: str) -> list[str]:
    """Return the valid values of an element: one, or all if its multiplicity allows (PS3.6)."""
    texts = _texts(source, keyword)
    return _usable(keyword, texts if dictionary_VM(keyword) != "1" else texts[:1])


def _usable(keyword: str, texts: Iterable[str]) -> list[str]:
    return [value for text in texts if (value := _written(keyword, text))]


def _written(keyword: str, text: str) -> str:
    """Return a text in a form valid for its value representation, or ""."""
    if keyword == "PatientSex":
        return _SEXES.get(text.upper(), "")
    vr = dictionary_VR(keyword)
    if vr in _READERS:
        return _READERS[vr](text)
    limit = LIMITS.get(vr, 10240)
    return "" if len(text) > limit and keyword in NEVER_SHORTENED else text[:limit].strip()


def patient_id(source: Dataset) -> str:
    """Return Patient ID (0010,0020).

    Raises:
        InvalidInstance: several, longer than 64 characters, or not in the declared character set: a damaged ID may be
            another patient's. So may one without its control characters.
    """
    if is_misread(source, "PatientID") or any(map(_CONTROL.search, texts(source, "PatientID"))):
        raise InvalidInstance(
            "Patient ID (0010,0020) has characters outside Specific Character Set (0008,0005): no report can carry it",
            offending=0x00100020,
        )
    if len(set(texts(source, "PatientID"))) > 1:
        raise InvalidInstance("Patient ID (0010,0020) has several values: no report can carry it", offending=0x00100020)
    text = _text(source, "PatientID")
    if len(text) > LIMITS["LO"]:
        raise InvalidInstance("Patient ID longer than 64 characters: no report can carry it", offending=0x00100020)
    return text


def uid_of(source: Dataset, keyword: str) -> str:
    """Return a required UID of the source, leading zeros included.

    Raises:
        InvalidInstance: missing, or not a UID.
    """
    text = _text(source, keyword)
    if not is_uid(text):
        raise InvalidInstance(f"{keyword} is missing or no UID: the instance cannot be referenced")
    return text


def utc_offset(source: Dataset) -> timezone | None:
    """Return Timezone Offset From UTC (0008,0201), or None if it is missing or outside -1200..+1400."""
    match = _OFFSET.fullmatch(_text(source, "TimezoneOffsetFromUTC"))
    if match is None:
        return None
    minutes = (int(match[2]) * 60 + int(match[3])) * (-1 if match[1] == "-" else 1)
    return timezone(timedelta(minutes=minutes)) if -720 <= minutes <= 840 and int(match[3]) < 60 else None


def copied_items(source: Dataset, keyword: str, members: Iterable[str], required: Iterable[str]) -> list[Dataset]:
    """Return the items of a sequence rebuilt from plain members; items without a `required` one are left out."""
    copies = []
    for original in items(source, keyword):
        item = Dataset()
        for member in members:
            if text := value_of(original, member):
                setattr(item, member, text)
        if all(name in item for name in required):
            copies.append(item)
    return copies


def copied_codes(source: Dataset, keyword: str) -> list[Dataset]:
    """Return the complete entries of a code sequence; those without value, scheme or meaning are left out."""
    found = []
    for original in items(source, keyword):
        code = Code(*(value_of(original, name) for name in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")))
        if all(code):
            item = coded(code)
            if version := value_of(original, "CodingSchemeVersion"):
                item.CodingSchemeVersion = version
            found.append(item)
    return found


def _text(source: Dataset, keyword: str) -> str:
    """Return the first non-empty value as printable text."""
    return next(iter(_texts(source, keyword)), "")


def _texts(source: Dataset, keyword: str) -> list[str]:
    """Return the non-empty values as printable text, or [] if they are not in the declared character set."""
    if is_misread(source, keyword):
        return []
    return [text for text in map(_printable, texts(source, keyword)) if text]


def _printable(text: str) -> str:
    return _CONTROL.sub(" ", text.encode("utf-8", "replace").decode()).strip()


def _date(text: str) -> str:
    """DA: a complete, valid date, or ""."""
    match = _DATE.fullmatch(text)
    if match is None:
        return ""
    try:
        return date(int(match[1]), int(match[2]), int(match[3])).strftime("%Y%m%d").rjust(8, "0")
    except ValueError:
        return ""


def _time(text: str) -> str:
    match = _TIME.fullmatch(text)
    return "" if match is None else "".join(part or "" for part in match.groups())


def _person_name(text: str) -> str:
    """PN: at most three groups (alphabetic=ideographic=phonetic) of five components and 64 characters."""
    groups = ["^".join(group.split("^")[:5])[:64].rstrip("^ ") for group in text.split("=")[:3]]
    return str(PersonName("=".join(groups).rstrip("=")))


def _code_string(text: str) -> str:
    return text.upper() if re.fullmatch(r"[A-Z0-9 _]{1,16}", text.upper()) else ""


def _age(text: str) -> str:
    return text.upper() if re.fullmatch(r"\d{3}[DWMY]", text.upper()) else ""


def _positive(text: str) -> str:
    """DS of a quantity that cannot be zero, such as weight, with the source's own digits if they are valid."""
    try:
        number = float(text)
    except ValueError:
        return ""
    if not 0 < number < 1e6:
        return ""
    return text if _DECIMAL.fullmatch(text) else f"{number:.6g}"


def _uid(text: str) -> str:
    return text if is_uid(text) else ""


_READERS = {
    "DA": _date,
    "TM": _time,
    "PN": _person_name,
    "CS": _code_string,
    "AS": _age,
    "DS": _positive,
    "UI": _uid,
}
