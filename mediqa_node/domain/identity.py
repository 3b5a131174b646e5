"""Which patient, study and visit an image names, and whether two images name the same.

Headers of one patient differ without meaning it: an archive fills in what a scanner left empty, pads a name with
carets, or writes it in capitals or with composed characters. What one side leaves empty is therefore no difference,
except the Patient ID.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations, zip_longest
from typing import ClassVar
from unicodedata import normalize


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Patient and visit as an image names them, as text without padding; empty where it names none.

    Attributes:
        patient_id: Patient ID (0010,0020).
        issuer: Issuer of Patient ID (0010,0021).
        name: Patient's Name (0010,0010).
        birth_date, sex: (0010,0030), (0010,0040).
        accession_number: (0008,0050).
        study_instance_uid: (0020,000D).
    """

    patient_id: str = ""
    issuer: str = ""
    name: str = ""
    birth_date: str = ""
    sex: str = ""
    accession_number: str = ""
    study_instance_uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRules:
    """How identifiers of one peer are compared with those of the images.

    Attributes:
        ignore_padding_zeros: `007` and `7` are one Patient ID or accession number.
        ignore_case: `ab1` and `AB1` are one Patient ID, issuer or accession number.
        ignore_issuer: the peer writes an issuer of its own.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    ignore_padding_zeros: bool = False
    ignore_case: bool = False
    ignore_issuer: bool = False

    def number(self, text: str) -> str:
        """Return a Patient ID or accession number in the form that is compared.

        >>> IdentityRules(ignore_padding_zeros=True, ignore_case=True).number("00ab1")
        'AB1'
        """
        text = self.text(text)
        return (text.lstrip("0") or text[-1:]) if self.ignore_padding_zeros else text

    def text(self, text: str) -> str:
        """Return an issuer in the form that is compared."""
        text = normalize("NFC", text.strip())
        return text.upper() if self.ignore_case else text


EXACT = IdentityRules()
"""Identifiers are compared as they stand."""

_WORDS = {
    "patient_id": "patient ID",
    "issuer": "issuer of patient ID",
    "name": "name",
    "birth_date": "birth date",
    "sex": "sex",
    "accession_number": "accession number",
    "study_instance_uid": "study",
}


def differences(one: Identity, other: Identity, rules: IdentityRules = EXACT) -> tuple[str, ...]:
    r"""Return in words what tells two identities apart; () if both may be the same patient and visit.

    >>> differences(Identity(patient_id="1", name="DOE^JANE^^"), Identity(patient_id="1", name="Doe^Jane", sex="F"))
    ()
    >>> differences(Identity(patient_id="1", name="M\u00fcller"), Identity(patient_id="1", name="Mu\u0308ller"))
    ()
    >>> differences(Identity(patient_id="1", name="Doe^Jane"), Identity(patient_id="1", name="Doe^Jane^Marie"))
    ()
    >>> differences(Identity(patient_id="1"), Identity(accession_number="A2"))
    ('patient ID',)
    """
    found = ["patient_id"] if rules.number(one.patient_id) != rules.number(other.patient_id) else []
    if not rules.ignore_issuer and _both_differ(rules.text(one.issuer), rules.text(other.issuer)):
        found.append("issuer")
    if _names_differ(one.name, other.name):
        found.append("name")
    for field in ("birth_date", "sex"):
        if _both_differ(getattr(one, field).upper(), getattr(other, field).upper()):
            found.append(field)
    if _both_differ(rules.number(one.accession_number), rules.number(other.accession_number)):
        found.append("accession_number")
    if one.study_instance_uid != other.study_instance_uid:
        found.append("study_instance_uid")
    return tuple(_WORDS[field] for field in found)


def is_same_patient(one: Identity, other: Identity) -> bool:
    """Whether both may be one patient in one study, be it another visit."""
    return not set(differences(one, other)) - {_WORDS["accession_number"]}


def disagreements(identities: Iterable[Identity]) -> tuple[str, ...]:
    """Return in words what tells any two of the images apart; () if all may be one patient and visit."""
    distinct = tuple(dict.fromkeys(identities))
    return tuple(dict.fromkeys(word for one, other in combinations(distinct, 2) for word in differences(one, other)))


def merged(one: Identity, other: Identity) -> Identity:
    """Return the first of two identities that agree, with what it leaves empty filled in from the other.

    >>> merged(Identity(name="DOE^J"), Identity(name="Doe^J=水")).name
    'DOE^J=水'
    >>> merged(Identity(name="Doe^Jane^^Dr"), Identity(name="Doe^^Marie")).name
    'Doe^Jane^Marie^Dr'
    """
    filled = {field: getattr(one, field) or getattr(other, field) for field in _WORDS}
    groups = zip_longest(one.name.split("="), other.name.split("="), fillvalue="")
    filled["name"] = "=".join(_filled(ours, theirs) for ours, theirs in groups)
    return Identity(**filled)


def _both_differ(one: str, other: str) -> bool:
    return bool(one and other) and one != other


def _names_differ(one: str, other: str) -> bool:
    """Compare what both names have (PS3.5 section 6.2.1.1): a romanised group or a middle name is often added."""
    groups = zip(one.split("="), other.split("="), strict=False)
    return any(
        _both_differ(_component(ours), _component(theirs))
        for group in groups
        for ours, theirs in zip(*(text.split("^") for text in group), strict=False)
    )


def _component(text: str) -> str:
    return normalize("NFC", text.strip().casefold())


def _filled(group: str, other: str) -> str:
    """Return a group of a name with its empty components filled in from another; as it stands if none is."""
    components = zip_longest(group.split("^"), other.split("^"), fillvalue="")
    filled = "^".join(ours if ours.strip() else theirs for ours, theirs in components).rstrip("^")
    return group if group.rstrip("^") == filled else filled
