"""Reasons not to score a series, or not to train on it: localizers, screens, maps, reformats.

Rules that make a score meaningless (`scorable=False`) are separate from rules that only make a poor training label. A
rule about single images applies to the series if more than half of its images match, or if nothing is left of it; a
minority is left out, and makes the series unfit for training. Image Type, frame type and geometry decide first; the
name of a series is the last hint.
"""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from pydicom import Dataset

from mediqa_node.dicom.acquired_geometry import is_acquisition
from mediqa_node.dicom.header import (
    codes,
    exact,
    frame_header,
    frame_headers,
    items,
    number,
    text,
    unexpected_frames,
)
from mediqa_node.dicom.image_types import Findings, frame_findings, image_type_findings, is_original_mpr
from mediqa_node.dicom.modality import modality_of
from mediqa_node.dicom.plausible import (
    check_bits,
    check_frames,
    check_matrix,
    check_photometric,
    check_pixels,
    missing_palette,
    rescale,
    rescales,
)
from mediqa_node.dicom.series_exclusions import named_exclusions, series_exclusions
from mediqa_node.dicom.series_names import names_phantom
from mediqa_node.dicom.stacks.mosaic import mosaic_evidence
from mediqa_node.dicom.stacks.planes import Plane, planes
from mediqa_node.dicom.stored_frames import stored_frames
from mediqa_node.domain.errors import ImplausibleElement, UnreadableElement
from mediqa_node.domain.recall import Recall, fresh
from mediqa_node.domain.technique import Exclusion

_STORAGE = r"^1\.2\.840\.10008\.5\.1\.4\.1\.1\."
_NO_IMAGE = re.compile(_STORAGE + r"(11|88|66|104|481|9|4\.2)(\.|$)|^1\.2\.840\.10008\.5\.1\.4\.(34|43|44|45)\.")
_SECONDARY_CAPTURE = re.compile(_STORAGE + r"7(\.|$)")
_CONVERTED = {"DF", "DI", "DRW", "SD", "SI", "SYN", "WSD"}

# Read as they are; `plausible` reads the others.
_PIXEL_ELEMENTS = ("HighBit", "PixelPaddingValue", "PixelPaddingRangeLimit")
# Keyword and number of values.
_PLANE = (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6))
_SPACING = (("PixelSpacing", 2), ("SliceThickness", 1))

_MAP_NAME = re.compile(r"apparent diffusion coef|fractional aniso|exponential apparent", re.I)
_DERIVED_MAP_NAME = re.compile(
    r"(?<![a-z])(e?adc|fa(?![\W_]*\d)|colfa|tracew|tensor|rel?cb[fv]|cb[fv]|mtt|ttp|tmax|[tr][12]\W?(star|\*)?\W?map)(?![a-z])",
    re.I,
)
_MONOENERGETIC = re.compile(r"(?<![a-z])(mono[a-z]*|vmi|me)[\W_+]*\d+[\W_]*kev", re.I)
_MATERIAL = re.compile(
    r"(?<![a-z])(vnc|virtual non.?(contrast|iodine)|iodmap|z.?eff"
    r"|iodine(?!\W*(contrast|allerg|inj|free|therap|treat|stag|uptake|ablat|\d{3}))"
    r"|electron density)(?![a-z])",
    re.I,
)
_IODINE_GIVEN = re.compile(
    r"(?<![a-z])(?<!virtual[\W_])(with(out)?|w[\W_]*o?|non?|not|sans|pre|post|before|after|iv|i\.v\.|oral|to|c\+)[\W_]*iodine"
    r"(?!\W*(map|density|overlay|image|concentration))(?![a-z])",
    re.I,
)
"""Iodine as a contrast medium that was given, or not: no map of it."""
_SCOUT_OPTION = re.compile(r"(?<![A-Z])(SCOUT|TOP|TOPO|TOPOGRAM|SURVIEW|SCANOSCOPE|SCANOGRAM)(?![A-Z])")
"""Scan Options (0018,0022): `SCOUT MODE` of GE, `CT_SOM5 TOP` of Siemens."""


def exclusions(
    headers: Sequence[Dataset],
    *,
    placed: Sequence[Plane] | None = None,
    of_instances: Sequence[Sequence[Exclusion]] | None = None,
) -> tuple[Exclusion, ...]:
    """Return the reasons to exclude a series, those that forbid scoring first; () if there are none.

    Args:
        headers: all instances of one series, without pixels, in any order.
        placed, of_instances: their planes and `exclusions_of_each`, if the caller has them already.
    """
    if not headers:
        return (Exclusion(code="no_images", detail="the series holds no instance", scorable=False),)
    of_instances = of_instances or exclusions_of_each(headers, placed)
    some_left = any(scorable(of_instances))
    alike: dict[tuple[str, bool], list[str]] = {}
    for one in of_instances:
        for kind, detail in {(exclusion.code, exclusion.scorable): exclusion.detail for exclusion in one}.items():
            alike.setdefault(kind, []).append(detail)
    found = []
    for (code, minor), details in alike.items():
        several = _of_several(code, details, len(headers), "images", some_left=some_left)
        found.append(replace(several, scorable=minor or several.scorable))
    if series_modality(headers) in ("CT", "MR"):
        found += series_exclusions(headers, planes(headers) if placed is None else placed)
    return tuple(sorted(found, key=lambda exclusion: exclusion.scorable))


def _of_several(code: str, details: Sequence[str], total: int, what: str, *, some_left: bool) -> Exclusion:
    """Return a refusal by more than half of images or frames, or if none of them is left; else a poor label."""
    hit = len(details)
    detail = details[0] if hit == total else f"{details[0]} ({hit} of {total} {what})"
    return Exclusion(code=code, detail=detail, scorable=some_left and 2 * hit <= total)


def scorable(of_instances: Sequence[Sequence[Exclusion]]) -> list[bool]:
    """Return for each instance whether nothing refuses it on its own: only such images are scored and exported.

    Args:
        of_instances: as `exclusions_of_each` returns them.
    """
    return [all(exclusion.scorable for exclusion in one) for one in of_instances]


def exclusions_of_each(
    headers: Sequence[Dataset],
    placed: Sequence[Plane] | None = None,
    *,
    recall: Recall = fresh,
    names: Sequence[Hashable] = (),
) -> list[tuple[Exclusion, ...]]:
    """Return the reasons to exclude each instance of a series: by its own elements, and by the name of its series.

    Args:
        headers, placed: as `exclusions` takes them.
        recall: what is known of single headers already, by their names.
    """
    named = named_exclusions(headers, placed)
    modality = series_modality(headers)
    mpr_is_acquired = _mpr_is_acquired(headers, placed, modality)
    by_itself = recall(
        range(len(headers)),
        lambda index: ("exclusions", names[index], mpr_is_acquired),
        lambda some: [tuple(_instance_exclusions(headers[index], mpr_is_acquired)) for index in some],
    )
    return [
        (*(() if name is None else (name,)), *_other_modality(ds, modality), *own)
        for ds, name, own in zip(headers, named, by_itself, strict=True)
    ]


def _mpr_is_acquired(headers: Sequence[Dataset], placed: Sequence[Plane] | None, modality: str) -> bool:
    """Whether the images that call themselves an original MPR are placed as they are acquired, not reformatted."""
    marked = {index for index, ds in enumerate(headers) if is_original_mpr(ds)}
    if not marked:
        return False
    found = planes(headers) if placed is None else placed
    return is_acquisition([plane for plane in found if plane.ref.instance_index in marked], modality)


def _instance_exclusions(ds: Dataset, mpr_is_acquired: bool) -> Iterator[Exclusion]:
    of_type = partial(image_type_findings, mpr_is_acquired=mpr_is_acquired)
    yield from _refused(_kind, _phantom, of_type, ds=ds)
    yield from _frame_kinds(ds, mpr_is_acquired)
    yield from _refused(_frames, _display, _ct_rules, _mr_rules, _unreadable, ds=ds)
    yield from (Exclusion(code=code, detail=detail, scorable=True) for code, detail in _training_only(ds))


def _refused(*rules: Callable[[Dataset], Findings], ds: Dataset) -> Iterator[Exclusion]:
    for rule in rules:
        yield from (Exclusion(code=code, detail=detail, scorable=False) for code, detail in rule(ds))


def series_modality(headers: Sequence[Dataset]) -> str:
    """Return `CT`, `MR` or `OP`, as most images of a series are by their SOP class; "" if none has the majority."""
    counts = Counter(modality for header in headers if (modality := modality_of(header)))
    modality, hit = counts.most_common(1)[0] if counts else ("", 0)
    return modality if 2 * hit > counts.total() else ""


def _other_modality(ds: Dataset, of_series: str) -> Iterator[Exclusion]:
    if (own := modality_of(ds)) not in ("", of_series):
        detail = f"{own} by SOP Class UID (0008,0016), in a series of {of_series or 'several modalities'}"
        yield Exclusion(code="modality", detail=detail, scorable=False)


def _kind(ds: Dataset) -> Findings:
    sop_class = text(ds, "SOPClassUID")
    if _NO_IMAGE.match(sop_class):
        yield "not_an_image", f"SOP Class UID (0008,0016) {sop_class}"
    elif _SECONDARY_CAPTURE.match(sop_class):
        yield "secondary_capture", f"SOP Class UID (0008,0016) {sop_class}"
    elif not modality_of(ds):
        yield "modality", f"{text(ds, 'Modality') or 'no Modality'} (0008,0060), SOP class {sop_class or 'missing'}"


def _phantom(ds: Dataset) -> Findings:
    names = (text(ds, key) for key in ("SeriesDescription", "ProtocolName", "StudyDescription"))
    if words := names_phantom(*names):
        yield "phantom", f"{words!r} in a description"
    elif names_phantom(text(ds, "PatientName")) or codes(ds, "QualityControlSubject") == ("YES",):
        yield "phantom", "Patient's Name (0010,0010) or Quality Control Subject (0010,0200) says phantom"


def _frame_kinds(ds: Dataset, mpr_is_acquired: bool) -> Iterator[Exclusion]:
    """Apply to the frames of an instance the rule for the images of a series: most of them refuse it, or all."""
    found = [dict(frame_findings(frame, mpr_is_acquired=mpr_is_acquired)) for frame in frame_headers(ds)]
    some_left = not all(found)
    for code in dict.fromkeys(code for one in found for code in one):
        details = [one[code] for one in found if code in one]
        yield _of_several(code, details, len(found), "frames", some_left=some_left)


def _frames(ds: Dataset) -> Findings:
    """Refuse frames that their class has no place for: no reference could name one, and the first is not the series."""
    if count := unexpected_frames(ds):
        where = " in Pixel Data (7FE0,0010)" if stored_frames(ds) == count else ""
        yield "frames_in_single_frame_class", f"{count} frames{where}, SOP class {text(ds, 'SOPClassUID')}"


def _display(ds: Dataset) -> Findings:
    if codes(ds, "BurnedInAnnotation") == ("YES",):
        yield "burned_in", "Burned In Annotation (0028,0301) YES"
    if modality_of(ds) not in ("CT", "MR"):
        return
    if (number(ds, "SamplesPerPixel") or 1) > 1:
        yield "colour", "Samples per Pixel (0028,0002) 3 in CT or MR"
    elif codes(ds, "PhotometricInterpretation") == ("PALETTE COLOR",) and not missing_palette(ds):
        yield "colour", "Photometric Interpretation (0028,0004) PALETTE COLOR in CT or MR"


def _ct_rules(ds: Dataset) -> Findings:
    if modality_of(ds) != "CT":
        return
    if found := _SCOUT_OPTION.search(" ".join(codes(ds, "ScanOptions"))):
        yield "localizer", f"{found.group()!r} in Scan Options (0018,0022)"
    if found := _MATERIAL.search(_IODINE_GIVEN.sub(" ", text(ds, "SeriesDescription"))):
        yield "map", f"{found.group()!r} in Series Description (0008,103E)"


def _mr_rules(ds: Dataset) -> Findings:
    if modality_of(ds) != "MR":
        return
    if evidence := mosaic_evidence(ds):
        yield "mosaic", evidence
    name = text(ds, "SeriesDescription")
    derived = codes(ds, "ImageType")[:1] == ("DERIVED",)
    found = _MAP_NAME.search(name) or (_DERIVED_MAP_NAME.search(name) if derived else None)
    if found:
        yield "map", f"{found.group()!r} in Series Description (0008,103E)"


def _unreadable(ds: Dataset) -> Findings:
    """Find unreadable elements that define the meaning or position of pixels."""
    modality = modality_of(ds)
    if modality:
        yield from _first_unreadable(_pixel_readings(ds, modality))


def _pixel_readings(ds: Dataset, modality: str) -> Iterator[Callable[[], object]]:
    yield from (partial(exact, ds, key) for key in _PIXEL_ELEMENTS)
    checks = (check_matrix, check_bits, check_frames, check_photometric, check_pixels)
    yield from (partial(check, ds) for check in checks)
    if modality == "OP":
        return
    rescaled = rescales(ds)
    for frame in frame_headers(ds):
        if rescaled:
            yield partial(rescale, frame, modality)
        yield from (partial(frame.exact, key, count) for key, count in _PLANE)


def _first_unreadable(readings: Iterator[Callable[[], object]], code: str = "") -> Findings:
    for read in readings:
        try:
            read()
        except UnreadableElement as error:
            yield code or ("implausible" if isinstance(error, ImplausibleElement) else "unreadable"), str(error)
            return


def _training_only(ds: Dataset) -> Findings:
    frame = frame_header(ds, None)
    yield from _first_unreadable((partial(frame.exact, key, count) for key, count in _SPACING), "unreadable_spacing")
    kind = codes(ds, "ImageType")
    if kind[:3] == ("DERIVED", "PRIMARY", "AXIAL"):
        yield "review", "Image Type (0008,0008) DERIVED\\PRIMARY\\AXIAL: some scanners and anonymisers write so"
    elif kind[:1] == ("DERIVED",) or kind[1:2] == ("SECONDARY",):
        yield "derived", "Image Type (0008,0008) " + "\\".join(kind[:2])
    conversion = codes(ds, "ConversionType")
    if conversion and conversion[0] in _CONVERTED:
        yield "converted", f"Conversion Type (0008,0064) {conversion[0]}"
    if codes(ds, "LossyImageCompression") == ("01",):
        yield "lossy", "Lossy Image Compression (0028,2110) 01"
    if modality_of(ds) == "OP":
        yield "stage2_only", "a photograph has no dose-like label"
    monoenergetic = _MONOENERGETIC.search(text(ds, "SeriesDescription"))
    if monoenergetic or items(ds, "MultienergyCTProcessingSequence"):
        yield "multi_energy", "virtual monoenergetic or other multi-energy processing"
