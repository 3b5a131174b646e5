"""Decide the region of a stack: what the headers agree on, or `unknown`.

Sources, most trusted first: the site's table; anatomy codes; what describes this acquisition (Image Type or an
ECG-triggered cine, Body Part Examined, Series Description or else Protocol Name); what describes the whole examination
(procedure codes or else Study Description).

Body Part Examined (0018,0015) precedes free words, because it is a defined term and words mislead: a protocol is reused
for another part of the body, one study covers several. But it is wrong in 15 % of images (Gueld 2002, doi
10.1117/12.467017): scanners keep the one that the patient was registered with, archives write the organ of their study
into every series. So these are exceptions:

- A Series Description or Protocol Name that contradicts it leaves the region open, unless the words of the examination
  support one of the two.
- Words of the examination that name its neighbour (an examination of the pelvis, Body Part Examined ABDOMEN) leave the
  region open: many devices have one body part for both.
- Words that name a part of it (heart in chest, lumbar spine in abdomen) are more exact and contradict nothing.

Every contradiction is recorded as `region_conflict`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from mediqa_node.dicom.header import FrameHeader, items, text
from mediqa_node.dicom.prompt_rules import PromptRules, SiteRule
from mediqa_node.dicom.series_names import folded_words
from mediqa_node.dicom.stacks.geometry import slice_normal
from mediqa_node.domain.images import Stack
from mediqa_node.domain.prompt import PromptTerm

UNKNOWN = PromptTerm(value="unknown", source="none", confidence=0.0)

_CONTRADICTED, _COMBINED = 0.7, 0.75
"""Factors of the confidence: where another source contradicts, and where a name lists several regions."""
_CINE_IMAGES, _CINE_TR_MS = 8, 10.0


@dataclass(frozen=True, slots=True)
class _Claim:
    """The regions that one source names, and the one that they come to for this stack: `unknown` if none does."""

    source: str
    confidence: float
    named: frozenset[str]
    region: str

    def term(self, factor: float = 1.0) -> PromptTerm:
        if self.region == "unknown":
            return UNKNOWN
        return PromptTerm(value=self.region, source=self.source, confidence=factor * self.confidence)


class RegionEvidence:
    """The claims of one stack about its region.

    Args:
        header: of the first frame.
        modality: its prompt word; an MR of the head shows the brain.
        extent_mm: along the patient: a short stack shows only one of several regions in a name.
    """

    def __init__(self, header: FrameHeader, modality: str, extent_mm: float, rules: PromptRules) -> None:
        self._header, self._rules, self._extent_mm = header, rules, extent_mm
        self._aliases = rules.as_modality.get(modality, {})
        self._modality = modality

    def code(self) -> _Claim | None:
        """Return the claim of Anatomic Region Sequence (0008,2218)."""
        codes = (text(item, "CodeValue") for item in self._header.items("AnatomicRegionSequence"))
        found = next((self._rules.region_codes[code] for code in codes if code in self._rules.region_codes), None)
        return self._claim("anatomy_code", 0.9, frozenset({found})) if found else None

    def acquisition(self) -> list[_Claim]:
        """Return the claims about this series: by Image Type or triggering, body part, and words."""
        flavours = self._header.codes("ImageType")[2:] + self._header.codes("FrameType")[2:]
        types = self._rules.region_image_types
        flavour = next((types[word] for word in flavours if word in types), None)
        claims = [self._claim("image_type", 0.85, frozenset({flavour}))] if flavour else []
        if not flavour and self._modality == "MR" and is_heart_cine(self._header):
            claims.append(self._claim("physics", 0.7, frozenset({"heart"})))
        claims += self._of_names("body_part", 0.8, [self._header.text("BodyPartExamined")])
        names = [self._header.text(key) for key in ("SeriesDescription", "ProtocolName")]
        return claims + self._of_names("text", 0.75, names)

    def examination(self) -> _Claim | None:
        """Return the claim of the procedure codes, else of Study Description (0008,1030)."""
        names = [text(item, "CodeMeaning") for item in _procedure_codes(self._header.dataset)]
        return next(iter(self._of_names("text", 0.7, [*names, self._header.text("StudyDescription")])), None)

    def _of_names(self, source: str, confidence: float, names: Sequence[str]) -> list[_Claim]:
        """Return the claim of the first name with a region; [] if none has one."""
        for name in names:
            words = folded_words(name)
            named = frozenset(region for region, pattern in self._rules.region_text if pattern.search(words))
            if named:
                return [self._claim(source, confidence, named)]
        return []

    def _claim(self, source: str, confidence: float, named: frozenset[str]) -> _Claim:
        if len(named) == 1:
            region = min(named)
        else:
            region = self._rules.combination(named, extent_mm=self._extent_mm) or "unknown"
            confidence *= _COMBINED
        return _Claim(source, confidence, named, self._aliases.get(region, region))

    def decide(self, conflicts: list[str]) -> PromptTerm:
        """Return the region; contradictions are added to `conflicts`."""
        coded, acquisition, examination = self.code(), self._narrowed(self.acquisition()), self.examination()
        if acquisition and examination and all(claim.named < examination.named for claim in acquisition):
            examination = None  # it covers several regions, of which this series shows one
        claims = [claim for claim in (coded, *acquisition, examination) if claim]
        if not claims:
            return PromptTerm(value="retina", source="sop_class", confidence=0.9) if self._modality == "OP" else UNKNOWN
        best = coded or self._best(acquisition, examination)
        if any(claim.region == "unknown" for claim in claims):
            conflicts.append("several_regions")
        contradicted = best is None or not all(self._agree(best, claim) for claim in claims)
        if contradicted:
            conflicts.append("region_conflict")
        return best.term(_CONTRADICTED if contradicted else 1.0) if best else UNKNOWN

    def _narrowed(self, acquisition: Sequence[_Claim]) -> list[_Claim]:
        """Leave out words of several unconnected regions of which another claim names one."""
        return [
            claim
            for claim in acquisition
            if self._rules.combination(claim.named) or not any(other.named < claim.named for other in acquisition)
        ]

    def _best(self, acquisition: Sequence[_Claim], examination: _Claim | None) -> _Claim | None:
        """Return the claim that holds; None if two contradict each other and nothing decides."""
        claims = [claim for claim in (*acquisition, examination) if claim]
        if undisputed := self._undisputed(claims, claims):
            return undisputed
        if own := self._undisputed(acquisition, acquisition):
            is_neighbour = examination and self._rules.combination(own.named | examination.named)
            return None if own.source == "body_part" and is_neighbour else own
        return next((claim for claim in acquisition if examination and claim.region == examination.region), None)

    def _undisputed(self, candidates: Sequence[_Claim], claims: Sequence[_Claim]) -> _Claim | None:
        return next((one for one in candidates if all(self._agree(one, other) for other in claims)), None)

    def _agree(self, one: _Claim, other: _Claim) -> bool:
        """Whether a claim names the same region as another or, in words, a part of it: the heart in the chest."""
        pair = frozenset({one.region, other.region})
        if len(pair) == 1 or pair == {"head", "brain"}:
            return True
        return one.source != "body_part" and self._rules.combination(pair, extent_mm=0.0) == one.region


def region_term(
    header: FrameHeader,
    stack: Stack,
    modality: str,
    site: SiteRule | None,
    rules: PromptRules,
    conflicts: list[str],
) -> PromptTerm:
    """Return the region of a stack; contradictions are added to `conflicts`."""
    if site and site.region:
        return PromptTerm(value=site.region, source="site", confidence=1.0)
    return RegionEvidence(header, modality, _body_length_mm(stack), rules).decide(conflicts)


def _body_length_mm(stack: Stack) -> float:
    """Return how much of the patient's long axis a stack covers, by its slices and within them; 0.0 if unknown."""
    if stack.orientation is None or not stack.positions_mm:
        return 0.0
    of_normal, of_row, of_column = abs(slice_normal(stack.orientation)[2]), *np.abs(stack.orientation)[[2, 5]]
    across_mm = max(stack.positions_mm) - min(stack.positions_mm)
    _, row_spacing_mm, column_spacing_mm = stack.spacing_mm
    in_plane_mm = of_row * stack.columns * column_spacing_mm + of_column * stack.rows * row_spacing_mm
    return float(of_normal * across_mm + in_plane_mm)


def is_heart_cine(header: FrameHeader) -> bool:
    """Whether an MR image is one of a balanced cine triggered by the ECG, as it is acquired of the heart.

    Triggering alone is no evidence: abdomen, vessels and cerebrospinal fluid are triggered as well, by the pulse (PPG
    in Scan Options (0018,0022)) or with spoiled phase contrast.
    """
    sequence, variant, options = (header.codes(key) for key in ("ScanningSequence", "SequenceVariant", "ScanOptions"))
    return (
        "GR" in sequence
        and "SS" in variant
        and "SP" not in variant
        and "CG" in options
        and (header.number("CardiacNumberOfImages") or 0) >= _CINE_IMAGES
        and (header.number("RepetitionTime") or _CINE_TR_MS) < _CINE_TR_MS
    )


def _procedure_codes(ds: Dataset) -> Iterator[Dataset]:
    yield from items(ds, "PerformedProtocolCodeSequence")
    yield from items(ds, "ProcedureCodeSequence")
    for request in items(ds, "RequestAttributesSequence"):
        yield from items(request, "RequestedProcedureCodeSequence")
