"""Recognise preparatory scans, documents and phantoms by the names of a series.

Names are compared word by word, so that a word inside another (`SHIMADZU`, `OUTPATIENT PROTOCOL`) means nothing. A
word among others is weak evidence: a skeletal survey, a pilot study and an angiography with a bolus are examinations.
`exclusions` therefore asks the geometry first.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

_WORD_ENDS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=\d)(?=[^\W\d_])|(?<=[^\W\d_])(?=\d)|[\W_]+")

_LIGATURES = str.maketrans({"ß": "ss", "ẞ": "SS", "œ": "oe", "Œ": "OE", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O"})
_SEPARATORS = re.compile(r"[\W_]+")

_LOCALIZER = re.compile(
    r"\b(?:lo[ck]ali[sz](?:ers?|ors?|ators?|ateurs?|ador|zatore)|scout|topo(?:gramm?e?)?|surview|3 pl(?:ane)?"
    r"|rep[eé]rage)\b(?! guided)",
    re.I,
)
_TRACKING = re.compile(r"\bsmart ?prep\b", re.I)
_PREPARATION = re.compile(
    r"\b(?:loc|pilot|survey|(?:pre ?)?monitoring|monitor|timing"
    r"|(?<!post )(?<!with )(?<!without )(?:lung |test |timing |care )?bolus(?: (?:track(?:ing)?|trk|test|timing))?)\b",
    re.I,
)
"""Words of localizers and bolus tracking that examinations are named with, too."""
_CALIBRATION = re.compile(
    r"\b(?:asset ?cal(?:ib(?:ration)?)?|calib(?:ration)?|shim(?:ming)?|(?:sense |coil )?ref(?:erence)? scan"
    r"|sense ref)\b|^asset$|\baa\w*(?: \w+)? scout\b",
    re.I,
)
"""Coil calibration, and the automatic alignment scan of Siemens: volumes of many slices by nature."""
_DOCUMENT = re.compile(
    r"\b(?:dose (?:report|info(?:rmation)?|summary|record|sheet)|patient protocol"
    r"|screen ?(?:save|capture|shot)s?)\b",
    re.I,
)
_REPORT = re.compile(r"\b(?:report|screen ?cap)\b", re.I)
_PHANTOM = re.compile(r"\bphantom\b|\bdaily\b.*\bqa\b|\bacr\b.*\bq[ac]\b|\bquality assurance\b", re.I)
_NO_PHANTOM = re.compile(
    r"\b(?:with(?:out)?|w(?: o)?|no|and|plus|incl(?:uding)?)"
    r"(?: (?:calibration|reference|bone|mineral|density|bmd|qct|mindways|cirs))* phantom\b"
    r"|\bphantom (?:limb|pain|less|free)\b",
    re.I,
)
"""Of a patient with a phantom of bone density, or of another meaning."""
_EXAMINATION = re.compile(
    r"\b(?:skeletal|bones?|osseous|trauma|metasta\w+|myeloma|study|trial|project|therapy|treatment|cta|mra|angio\w*"
    r"|contrast|calcium|spectroscopy)\b",
    re.I,
)
"""Words by which a name is that of an examination: a bone survey, a pilot study, treatment monitoring, a CTA."""
_PLAIN = re.compile(
    r"\d+|[a-z]|ax|axial|tra|trans(?:verse)?|sag(?:ittal)?|cor(?:onal)?|plane?|iso|lat(?:eral)?|ap|pa|fast|rf|bh|mst"
    r"|ch|gre|haste|ssfse|trufi|fiesta|bffe|series|scans?|images?|screen|patient",
    re.I,
)
"""Words that may accompany another in the name of a preparatory scan or a document: planes, numbers, sequences."""
_SEVERAL = re.compile(
    r"\b(?:dyn\w*|dce|dsc|perf(?:usions?|usie)?|cine|4 ?d|multi ?phas\w*|triple|f ?mri|bold|asl|gat(?:ed|ing)"
    r"|time ?resolved|twist|tricks|keyhole|monitor\w*|bolus)\b",
    re.I,
)
"""Words of series that show one place several times."""
_PHASE = re.compile(
    r"\b(?:phase?s?|art(?:er\w*)?|ven(?:ous|oes|oese|ös)?|portal\w*|delay\w*|late|early|nephro\w*|excretory|nat(?:iv\w*)?"
    r"|plain|pre|post|without|with|wo|c|km|gd|gad\w*|contrast\w*|contr|unenhanced|enhanced|rest|stress|in|ex|insp\w*"
    r"|exs?p\w*|inhale|exhale|systol\w*|diastol\w*|best ?(?:dia|sys)\w*|prone|supine|flex\w*|extens\w*)\b",
    re.I,
)
"""Words of contrast phases, phases of heart and breath, and postures."""
_PERCENT = re.compile(r"\d+ ?%")
_KINDS = (
    ("localizer", _CALIBRATION, False),
    ("localizer", _LOCALIZER, True),
    ("localizer", _TRACKING, True),
    ("localizer", _PREPARATION, False),
    ("document", _DOCUMENT, True),
    ("document", _REPORT, False),
)
"""Reason code, words, and whether they tell it among the words of an examination, too."""


@dataclass(frozen=True, slots=True)
class NameHint:
    """What the name of a series says it is.

    Attributes:
        code: `localizer` or `document`, a reason code.
        words: the words found.
        alone: whether the name holds nothing else, apart from planes, numbers and sequences.
        certain: whether it is alone, or the words are those of localizers only.
        volume: whether it names a calibration scan, which is a volume by nature.
    """

    code: str
    words: str
    alone: bool
    certain: bool
    volume: bool


@lru_cache(maxsize=256)
def name_hint(name: str) -> NameHint | None:
    """Return what a Series Description (0008,103E) or Protocol Name (0018,1030) says, or None.

    >>> name_hint("AAHScout_32ch").words, name_hint("3 PL LOC").alone, name_hint("ABD LOC").alone
    ('AAH Scout', True, False)
    >>> name_hint("CT SKELETAL SURVEY"), name_hint("SHIMADZU"), name_hint("PILOT STUDY"), name_hint("LOCALIZED")
    (None, None, None, None)
    """
    words = _words(name)
    others = words
    for _, pattern, _ in _KINDS:
        others = pattern.sub(" ", others)
    alone = all(_PLAIN.fullmatch(word) for word in others.split())
    for code, pattern, only in _KINDS:
        found = pattern.search(words)
        if found and (only or alone or not _EXAMINATION.search(words)):
            certain, volume = alone or pattern is _LOCALIZER, alone and pattern is _CALIBRATION
            return NameHint(code, found.group(), alone, certain, volume)
    return None


def names_phantom(*names: str) -> str | None:
    """Return the words by which one of the names says that a phantom was scanned, or None.

    >>> names_phantom("BarPhantom"), names_phantom("QCT SPINE W/ PHANTOM", "fMRI phantom limb")
    ('Phantom', None)
    """
    words = (_words(name.replace("+", " plus ").replace("&", " and ")) for name in names)
    found = (_PHANTOM.search(_NO_PHANTOM.sub(" ", one)) for one in words)
    return next((match.group() for match in found if match), None)


def names_several_volumes(*names: str) -> bool:
    """Return whether a name says that one place was scanned several times: a dynamic series, a perfusion, a cine.

    >>> names_several_volumes("t1_vibe_dyn", ""), names_several_volumes("Thorax 5.0 B30f")
    (True, False)
    """
    return any(_SEVERAL.search(_words(name)) for name in names)


def phase_words(*names: str) -> frozenset[str]:
    """Return the words of names that tell a phase from the next: of a contrast agent, of heart or breath, a posture.

    >>> sorted(phase_words("Abdomen arterial 5.0", "LIVER 3PHASE")), sorted(phase_words("Cor 70% BestDiast"))
    (['arterial', 'phase'], ['70 %', 'best diast'])
    >>> phase_words("Thorax 5.0 B30f", "Thorax Routine")
    frozenset()
    """
    found = [match.group() for name in names for match in _PHASE.finditer(_words(name))]
    found += [
        match.group().replace("%", " %").replace("  ", " ") for name in names for match in _PERCENT.finditer(name)
    ]
    return frozenset(word.lower() for word in found)


@lru_cache(maxsize=256)
def _words(name: str) -> str:
    """Return the words of a name, separated by one space; a change of case or to digits ends a word."""
    return _WORD_ENDS.sub(" ", name).strip()


@lru_cache(maxsize=256)
def folded_words(name: str) -> str:
    """Return the words of a name in lower case, without accents: divided where case or digits begin, then undivided.

    >>> folded_words("T2_TSE_KNEE2"), folded_words("HWSnativ Schädel")
    ('t 2 tse knee 2 | t2 tse knee2', 'hw snativ schadel | hwsnativ schadel')
    """
    plain = fold_accents(name)
    undivided = _SEPARATORS.sub(" ", plain).strip()
    return f"{_words(plain)} | {undivided}".lower()


def fold_accents(name: str) -> str:
    """Return a name without accents and ligatures: `ss` for sharp s.

    >>> fold_accents("Fußgelenk, CŒUR, épaule")
    'Fussgelenk, COEUR, epaule'
    """
    divided = unicodedata.normalize("NFKD", name.translate(_LIGATURES))
    return "".join(letter for letter in divided if not unicodedata.combining(letter))
