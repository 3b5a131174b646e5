"""Read the four prompts of a stack from its headers, with source, confidence and contradictions.

Precedences: dimension from the data; modality from the SOP class; region as `prompt_region` decides; CT type from
kernel, window, names; MR type from the site's table, Acquisition Contrast, names, physics. Prompts that the header
leaves open stay `unknown` for the classifier.
"""

from collections.abc import Sequence

from pydicom import Dataset

from mediqa_node.dicom.header import FrameHeader, frame_headers, text
from mediqa_node.dicom.modality import modality_of
from mediqa_node.dicom.prompt_region import UNKNOWN, region_term
from mediqa_node.dicom.prompt_rules import PromptRules, SiteRule, TextRule, default_rules
from mediqa_node.dicom.technique.ct_exposure import ct_vendor
from mediqa_node.dicom.technique.mr_contrast import contrast_by_physics, mr_timing
from mediqa_node.domain.errors import NotScorable
from mediqa_node.domain.images import Stack
from mediqa_node.domain.prompt import MODALITIES, Prompt, PromptTerm

__all__ = ["PromptRules", "default_rules", "prompt_from_header"]

MINIMUM_POSITIONS_3D = 7


def prompt_from_header(headers: Sequence[Dataset], stack: Stack, rules: PromptRules) -> Prompt:
    """Return the prompts of one stack.

    Args:
        headers: the sequence the stack was made from, indexed by `FrameRef.instance_index`.
        stack: its first frame stands for all; its key has echo and b-value.
        rules: the site's tables.

    Returns:
        conflicts hold `region_conflict`, `several_regions`, `type_conflict`, `modality_conflict`.

    Raises:
        NotScorable: the images are neither CT nor MR nor fundus photographs.
    """
    conflicts: list[str] = []
    header = _frame_header(headers, stack)
    modality = _modality(header, conflicts)
    site = _site(header, rules)
    region = region_term(header, stack, modality.value, site, rules, conflicts)
    if site and site.type:
        kind = PromptTerm(value=site.type, source="site", confidence=1.0)
    elif modality.value == "CT":
        kind = _ct_type(header, region.value, rules, conflicts)
    elif modality.value == "MR":
        kind = _mr_type(header, stack, rules, conflicts)
    else:
        kind = _op_type(header, rules)
    dimension = "3D" if len(stack.positions_mm) >= MINIMUM_POSITIONS_3D else "2D"
    return Prompt(
        dimension=PromptTerm(value=dimension, source="data", confidence=1.0),
        modality=modality,
        region=region,
        type=kind,
        conflicts=tuple(dict.fromkeys(conflicts)),
    )


def _frame_header(headers: Sequence[Dataset], stack: Stack) -> FrameHeader:
    first = stack.frames[0]
    frames = frame_headers(headers[first.instance_index])
    return frames[min((first.frame_number or 1), len(frames)) - 1]


def _modality(header: FrameHeader, conflicts: list[str]) -> PromptTerm:
    """Return the modality from SOP Class UID (0008,0016), or from Modality (0008,0060) if that is empty."""
    found, stated = modality_of(header.dataset), text(header.dataset, "Modality").upper()
    if not found:
        raise NotScorable("modality", f"Modality (0008,0060) {stated or 'missing'}")
    if stated in MODALITIES and stated != found:
        conflicts.append("modality_conflict")
    if header.text("SOPClassUID"):
        return PromptTerm(value=found, source="sop_class", confidence=1.0)
    return PromptTerm(value=found, source="data", confidence=0.8)


def _site(header: FrameHeader, rules: PromptRules) -> SiteRule | None:
    protocol, series = header.text("ProtocolName"), header.text("SeriesDescription")
    for rule in rules.sites:
        if rule.protocol.search(protocol) and (rule.series is None or rule.series.search(series)):
            return rule
    return None


def _ct_type(header: FrameHeader, region: str, rules: PromptRules, conflicts: list[str]) -> PromptTerm:
    kernel, known = _kernel_type(header, region, rules)
    window = _window_type(header, rules)
    named = _named_type(header, rules.text_ct)
    if kernel and known:
        if window and window != kernel:
            conflicts.append("type_conflict")
        return PromptTerm(value=kernel, source="kernel", confidence=0.9)
    if window:
        return PromptTerm(value=window, source="window", confidence=0.6)
    if kernel:
        return PromptTerm(value=kernel, source="kernel", confidence=0.5)
    return PromptTerm(value=named.type, source="text", confidence=0.5) if named else UNKNOWN


def _kernel_type(header: FrameHeader, region: str, rules: PromptRules) -> tuple[str | None, bool]:
    """Return the type of Convolution Kernel (0018,1210) and whether it is in the table."""
    name = header.text("ConvolutionKernel").split("\\")[0]
    if not name:
        return None, False
    manufacturer = header.text("Manufacturer")
    vendor = next((vendor for vendor in rules.vendors if vendor.manufacturer.search(manufacturer)), None)
    if vendor is None:
        vendor = next((vendor for vendor in rules.vendors if vendor.name == ct_vendor(header)), None)
    if vendor is None:
        return None, False
    found = next((kind for kind, pattern in vendor.patterns if pattern.match(name)), None)
    kind = found or vendor.otherwise
    if kind == "lung" and region not in rules.lung_regions:
        kind = "bone"
    return (None, False) if kind == "unknown" else (kind, found is not None)


def kernel_class(header: FrameHeader, rules: PromptRules) -> str | None:
    """Return `soft`, `lung` or `bone` for a kernel that the site's table names; None for any other."""
    kind, known = _kernel_type(header, "unknown", rules)
    return kind if known else None


def _window_type(header: FrameHeader, rules: PromptRules) -> str | None:
    """Return the type of the first display window, HU."""
    center, width = header.number("WindowCenter", signed=True), header.number("WindowWidth")
    if center is None or width is None:
        return None
    fits = (
        rule.type
        for rule in rules.windows
        if rule.center[0] <= center <= rule.center[1] and rule.width[0] <= width <= rule.width[1]
    )
    return next(fits, None)


def _mr_type(header: FrameHeader, stack: Stack, rules: PromptRules, conflicts: list[str]) -> PromptTerm:
    timing = mr_timing(header, echo_time_ms=stack.key.echo_time_ms, b_value_s_mm2=stack.key.b_value)
    physics = contrast_by_physics(timing)
    named = _named_type(header, rules.text_mr)
    if named and named.type == "dwi" and physics == "t2":
        physics = None  # the b = 0 image of a diffusion series is T2-weighted: no contradiction
    contrast = next(iter(header.codes("AcquisitionContrast")), "")
    stated = rules.acquisition_contrast.get(contrast)
    opinions = {opinion for opinion in (stated, named.type if named else None, physics) if opinion}
    if len(opinions) > 1 and not (named and named.weak and len(opinions - {named.type}) == 1):
        conflicts.append("type_conflict")
    if stated:
        return PromptTerm(value=stated, source="acquisition_contrast", confidence=0.95)
    if named and physics in (None, named.type):
        return PromptTerm(value=named.type, source="text", confidence=0.8 if physics is None else 0.95)
    if named and not named.weak:
        return UNKNOWN  # TE, TR, TI and flip angle of another contrast: the echo of a pair, or a reused protocol
    return PromptTerm(value=physics, source="physics", confidence=0.7) if physics else UNKNOWN


def _named_type(header: FrameHeader, rules: Sequence[TextRule]) -> TextRule | None:
    """Return the rule that matches the most specific name: series before protocol before sequence."""
    for key in ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName"):
        name = header.text(key)
        if name and (found := next((rule for rule in rules if rule.pattern.search(name)), None)):
            return found
    return None


def _op_type(header: FrameHeader, rules: PromptRules) -> PromptTerm:
    """Return `cfp` for a colour photograph; angiograms, infrared and other monochrome images stay unknown."""
    words = " ".join((header.text("SeriesDescription"), header.text("ProtocolName"), header.text("ImageType")))
    colour = (header.number("SamplesPerPixel") or 3.0) >= 3 or header.codes("PhotometricInterpretation") == (
        "PALETTE COLOR",
    )
    return (
        PromptTerm(value="cfp", source="sop_class", confidence=0.9)
        if colour and not rules.not_colour.search(words)
        else UNKNOWN
    )
