"""What images are no slices, by Image Type, frame type and what goes with them: localizers, reformats, maps.

PS3.3 C.7.6.1.1.2 (Image Type), C.8.13.3 and C.8.15.3.3 (Frame Type of enhanced MR and CT).
"""

import re
from collections.abc import Iterator

from pydicom import Dataset

from mediqa_node.dicom.header import FrameHeader, codes, frame_headers
from mediqa_node.dicom.modality import modality_of

Findings = Iterator[tuple[str, str]]
"""Code and detail of reasons not to score an image."""

_LOCALIZER_TYPES = {"LOCALIZER", "TOPOGRAM", "SCOUT", "SURVIEW", "SURVEY"}
_REFORMAT_TYPES = {
    "MPR", "CSA_MPR", "MIP", "CSA_MIP", "MNIP", "MINIP", "MAX_IP", "MIN_IP", "PROJECTION_IMAGE", "REFORMATTED",
    "RESAMPLED", "CSAPARALLEL", "SUBTRACTION", "AVERAGE", "SCREEN_SAVE", "MPR_THICK", "VRT", "VOLUME_RENDER",
    "CURVED_MPR",
}  # fmt: skip
_MAP_TYPES = {
    "ADC", "EADC", "FA", "COLFA", "TRACEW", "TENSOR", "PHASE", "REAL", "IMAGINARY", "VELOCITY", "RCBF", "RELCBF",
    "RCBV", "RELCBV", "CBF", "CBV", "MTT", "TTP", "TMAX", "PBP", "KTRANS", "IRON", "FAT_FRACTION", "R2STAR",
    "DIFFUSION_ANISO", "DIFFUSION_ATTNTD", "T_TEST", "Z_SCORE", "STD_DEVIATION", "NEI", "TEMPERATURE",
}  # fmt: skip
# Some scanners mark every EPI as DISTORTED, even original diffusion images, so it is not a reason to refuse.
_VOLUMETRIC = (
    ("VolumetricProperties", ("VOLUME", "MIXED", "DISTORTED")),
    ("VolumeBasedCalculationTechnique", ("NONE", "MIXED")),
)


def image_type_findings(ds: Dataset, *, mpr_is_acquired: bool = False) -> Findings:
    """Check Image Type (0008,0008), from its third value on.

    Args:
        mpr_is_acquired: the geometry of the series shows that what calls itself an original MPR was acquired so.
    """
    yield from _types(codes(ds, "ImageType"), "Image Type (0008,0008)", modality_of(ds), mpr_is_acquired)


def frame_findings(frame: FrameHeader, *, mpr_is_acquired: bool = False) -> Findings:
    """Check what an enhanced object states of each frame, and a classic one of itself.

    Args:
        mpr_is_acquired: as `image_type_findings` takes it.
    """
    modality = modality_of(frame.dataset)
    yield from _types(frame.codes("FrameType"), "Frame Type (0008,9007)", modality, mpr_is_acquired)
    if (converted := frame.codes("ImageType")) != codes(frame.dataset, "ImageType"):  # of a legacy converted object
        yield from _types(converted, "Image Type (0008,0008)", modality, mpr_is_acquired)
    for key, fine in _VOLUMETRIC:
        value = frame.codes(key)
        if value and value[0] not in fine:
            yield "reformat", f"{key} {value[0]}"
    component = frame.codes("ComplexImageComponent")
    if component and component[0] in ("PHASE", "REAL", "IMAGINARY"):
        yield "map", f"Complex Image Component (0008,9208) {component[0]}"
    if modality == "CT":
        yield from _ct_frame(frame)
    elif modality == "MR":
        yield from _ge_frame(frame)


def is_original_mpr(ds: Dataset) -> bool:
    """Whether an instance, or a frame of it, calls itself an MPR but ORIGINAL\\PRIMARY: the geometry has to decide."""
    values = [codes(ds, "ImageType"), *(frame.codes("FrameType") for frame in frame_headers(ds))]
    return any(_is_original(kind) and "MPR" in kind[2:] for kind in values)


def fine_frames(ds: Dataset) -> tuple[FrameHeader, ...]:
    """Return the frames of an instance that `frame_findings` has nothing against; all, if none is left."""
    frames = frame_headers(ds)
    if len(frames) == 1:
        return frames
    return tuple(frame for frame in frames if not any(frame_findings(frame))) or frames


def _ge_frame(frame: FrameHeader) -> Findings:
    if frame.private_numbers(0x0019, "GEMS_ACQU_01", 0x17)[:1] == (256.0,):
        yield "localizer", "three-plane localizer, GE (0019,xx17) 256"
    component = frame.private_numbers(0x0043, "GEMS_PARM_01", 0x2F)[:1]
    if component and component[0] in (1.0, 2.0, 3.0):
        yield "map", f"phase, real or imaginary image, GE (0043,xx2F) {component[0]:g}"


def _ct_frame(frame: FrameHeader) -> Findings:
    thickness_mm = frame.number("SliceThickness") or 0.0
    if thickness_mm > 25:
        yield "localizer", f"Slice Thickness (0018,0050) {thickness_mm:g} mm"
    if frame.codes("AcquisitionType") == ("CONSTANT_ANGLE",):  # PS3.3 C.8.15.3.2
        yield "localizer", "Acquisition Type (0018,9302) CONSTANT_ANGLE"
    kind = frame.codes("RescaleType")
    if kind and not re.match(r"H(U|OUNS|.*FIELD)|US|UNSPECIFIED", kind[0]):
        yield "map", f"Rescale Type (0028,1054) {kind[0]}"


def _is_original(values: tuple[str, ...]) -> bool:
    return values[:2] == ("ORIGINAL", "PRIMARY")


def _types(values: tuple[str, ...], where: str, modality: str, mpr_is_acquired: bool) -> Findings:
    words = {value.replace(" ", "_") for value in values[2:]}
    if found := words & _LOCALIZER_TYPES:
        yield "localizer", f"{where} {min(found)}"
    acquired = {"MPR"} if mpr_is_acquired and _is_original(values) else set()
    if found := (words & _REFORMAT_TYPES) - acquired:
        yield "reformat", f"{where} {min(found)}"
    if modality != "MR":
        return
    maps = words & _MAP_TYPES | {word for word in words if re.search(r"(^|_|[TR]\d)MAP$", word)}
    # The component is one letter: third at Siemens, fourth at Philips.
    maps |= set(values[2:4]) & {"P", "R", "I"}
    if maps:
        yield "map", f"{where} {min(maps)}"
