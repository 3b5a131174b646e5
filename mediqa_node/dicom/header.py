"""Read the attributes of one image plane, from a classic or a multi-frame object.

Multi-frame objects keep attributes in functional groups (PS3.3 C.7.6.16). `FrameHeader` looks in this order:
the per-frame item, the shared item, attributes that a legacy converter could not place (Unassigned ... Converted
Attributes Sequence (0020,9170), (0020,9171)), the top level of the dataset. Values are parsed by `values`, whose
functions have counterparts here.
"""

from dataclasses import dataclass

from pydicom import Dataset
from pydicom.tag import BaseTag

from mediqa_node.dicom.stored_frames import stored_frames
from mediqa_node.dicom.values import (
    Key,
    binary,
    codes,
    exact,
    has_value,
    integer,
    items,
    number,
    numbers,
    private_creators,
    private_tag,
    text,
    texts,
)
from mediqa_node.domain.errors import UnreadableElement

__all__ = [
    "MAX_FRAMES",
    "FrameHeader",
    "Key",
    "codes",
    "exact",
    "frame_count",
    "frame_headers",
    "has_value",
    "integer",
    "items",
    "number",
    "numbers",
    "private_creators",
    "private_tag",
    "text",
    "texts",
]

MAX_FRAMES = 20_000
_SINGLE_FRAME = frozenset({"1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"})
"""CT and MR Image Storage: a Number of Frames (0028,0008) in them means nothing."""

# The functional group of each attribute (PS3.3 C.7.6.16, C.8.13.5 for MR, C.8.15.3 for CT).
_GROUP_MEMBERS = {
    "CTExposureSequence": "ExposureInmAs XRayTubeCurrentInmA ExposureTimeInms CTDIvol CTDIPhantomTypeCodeSequence "
    "WaterEquivalentDiameter ExposureModulationType EstimatedDoseSaving",
    "CTAcquisitionDetailsSequence": "RevolutionTime SingleCollimationWidth TotalCollimationWidth GantryDetectorTilt",
    "CTTableDynamicsSequence": "SpiralPitchFactor TableSpeed TableFeedPerRotation",
    "CTAcquisitionTypeSequence": "AcquisitionType",
    "CTXRayDetailsSequence": "KVP FilterType FocalSpots",
    "CTReconstructionSequence": "ConvolutionKernel ConvolutionKernelGroup ReconstructionAlgorithm "
    "ReconstructionDiameter",
    "CTImageFrameTypeSequence": "FrameType VolumetricProperties VolumeBasedCalculationTechnique",
    "MRImageFrameTypeSequence": "FrameType VolumetricProperties VolumeBasedCalculationTechnique "
    "ComplexImageComponent AcquisitionContrast",
    "IrradiationEventIdentificationSequence": "IrradiationEventUID",
    "FrameContentSequence": "TemporalPositionIndex FrameAcquisitionNumber FrameAcquisitionDateTime StackID "
    "InStackPositionNumber DimensionIndexValues",
    "TemporalPositionSequence": "TemporalPositionTimeOffset",
    "CardiacSynchronizationSequence": "NominalPercentageOfCardiacPhase NominalCardiacTriggerDelayTime",
    "MREchoSequence": "EffectiveEchoTime EchoTime",
    "MRTimingAndRelatedParametersSequence": "RepetitionTime FlipAngle EchoTrainLength RFEchoTrainLength "
    "GradientEchoTrainLength",
    "MRModifierSequence": "InversionRecovery InversionTimes ParallelReductionFactorInPlane "
    "ParallelReductionFactorOutOfPlane PartialFourier",
    "MRAveragesSequence": "NumberOfAverages",
    "MRImagingModifierSequence": "PixelBandwidth TransmitterFrequency",
    "MRReceiveCoilSequence": "ReceiveCoilName ReceiveCoilType",
    "MRFOVGeometrySequence": "MRAcquisitionPhaseEncodingStepsInPlane MRAcquisitionFrequencyEncodingSteps "
    "InPlanePhaseEncodingDirection PercentSampling PercentPhaseFieldOfView",
    "MRDiffusionSequence": "DiffusionBValue",
    "PixelMeasuresSequence": "PixelSpacing SliceThickness",
    "PlanePositionSequence": "ImagePositionPatient",
    "PlaneOrientationSequence": "ImageOrientationPatient",
    "PixelValueTransformationSequence": "RescaleType RescaleIntercept RescaleSlope",
    "FrameVOILUTSequence": "WindowCenter WindowWidth",
    "FrameAnatomySequence": "AnatomicRegionSequence FrameLaterality",
}
_GROUPS_OF: dict[Key, list[str]] = {}
for _group, _members in _GROUP_MEMBERS.items():
    for _member in _members.split():
        _GROUPS_OF.setdefault(_member, []).append(_group)

_NEVER_AT_TOP = ("CTExposureSequence",)
"""Not read at the top level: classic CT images hold it there with seconds in Exposure Time in ms (0018,9328)."""
_UNASSIGNED = ("UnassignedPerFrameConvertedAttributesSequence", "UnassignedSharedConvertedAttributesSequence")


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """One image plane and the datasets that may hold its attributes.

    Attributes:
        dataset: the whole instance.
        frame_number: from 1; None for single-frame objects.
        places: datasets that precede the top level: the per-frame item, the shared item, then those of the
            unassigned converted attributes.
    """

    dataset: Dataset
    frame_number: int | None = None
    places: tuple[Dataset, ...] = ()

    def holder(self, key: Key) -> Dataset:
        """Return the dataset with an attribute: an item of a functional group, or the top level."""
        groups = _GROUPS_OF.get(key, ())
        for place in self.places:
            for group in groups:
                for item in items(place, group)[:1]:
                    if has_value(item, key):
                        return item
            if has_value(place, key):
                return place
        for group in groups:  # Canon and Toshiba write the diffusion group at the top level of classic objects
            for item in () if group in _NEVER_AT_TOP else items(self.dataset, group)[:1]:
                if has_value(item, key):
                    return item
        return self.dataset

    def numbers(self, key: Key, *, signed: bool = False) -> tuple[float, ...]:
        """As `values.numbers`, wherever the attribute is."""
        return numbers(self.holder(key), key, signed=signed)

    def number(self, key: Key, *, signed: bool = False, flags: list[str] | None = None) -> float | None:
        """As `values.number`, wherever the attribute is."""
        return number(self.holder(key), key, signed=signed, flags=flags)

    def integer(self, key: Key) -> int | None:
        """As `values.integer`, wherever the attribute is."""
        return integer(self.holder(key), key)

    def exact(self, key: Key, count: int = 1) -> tuple[float, ...] | None:
        """As `values.exact`, wherever the attribute is."""
        return exact(self.holder(key), key, count)

    def exact_or_none(self, key: Key, count: int = 1) -> tuple[float, ...] | None:
        """As `exact`, but None for an unreadable element, for callers after `exclusions` has refused it."""
        try:
            return self.exact(key, count)
        except UnreadableElement:
            return None

    def text(self, key: Key) -> str:
        """As `values.text`, wherever the attribute is."""
        return text(self.holder(key), key)

    def codes(self, key: Key) -> tuple[str, ...]:
        """As `values.codes`, wherever the attribute is."""
        return codes(self.holder(key), key)

    def items(self, key: Key) -> tuple[Dataset, ...]:
        """As `values.items`, wherever the sequence is."""
        return items(self.holder(key), key)

    def private(self, group: int, creator: str, element: int) -> tuple[Dataset, BaseTag] | None:
        """Return the dataset and tag of a private element, found by its creator, or None."""
        for place in (*self.places, self.dataset):
            if (tag := private_tag(place, group, creator, element)) is not None and has_value(place, tag):
                return place, tag
        return None

    def private_numbers(self, group: int, creator: str, element: int) -> tuple[float, ...]:
        """Return the numbers of a private element, zero and negative ones too; () if absent."""
        found = self.private(group, creator, element)
        return numbers(*found, signed=True) if found else ()

    def private_text(self, group: int, creator: str, element: int) -> str:
        """Return the text of a private element; "" if absent."""
        found = self.private(group, creator, element)
        return text(*found) if found else ""

    def private_bytes(self, group: int, creator: str, element: int) -> bytes:
        """Return the bytes of a private element of binary VR; b"" if absent."""
        found = self.private(group, creator, element)
        return binary(*found) if found else b""


def unexpected_frames(ds: Dataset) -> int | None:
    """Return the number of frames of a CT or MR Image Storage object with several, which its class forbids; else None.

    By the header, or by pixels that hold more. A Number of Frames above `MAX_FRAMES` is not believed.
    """
    if text(ds, "SOPClassUID") not in _SINGLE_FRAME:
        return None
    count = max(integer(ds, "NumberOfFrames") or 1, len(items(ds, "PerFrameFunctionalGroupsSequence")))
    count = max(count if count <= MAX_FRAMES else 1, stored_frames(ds) or 1)
    return count if count > 1 else None


def frame_count(ds: Dataset, *, limit: int = MAX_FRAMES) -> int | None:
    """Return how many frames a multi-frame object has; None for a single-frame object, by its class or its header.

    A single-frame class to which a converter has added Per-frame Functional Groups (5200,9230) with one item stays one:
    references to it must not give a frame number (PS3.3 table 10-3). Never more than the groups describe, if present,
    nor more than `limit`: a sender may write any Number of Frames (0028,0008).
    """
    per_frame = items(ds, "PerFrameFunctionalGroupsSequence")
    if len(per_frame) <= 1 and text(ds, "SOPClassUID") in _SINGLE_FRAME:
        return None
    claimed = integer(ds, "NumberOfFrames")
    if per_frame:
        return min(len(per_frame), claimed if claimed and claimed > 0 else len(per_frame), limit)
    if claimed is None or (claimed <= 1 and "SharedFunctionalGroupsSequence" not in ds):
        return None
    return max(1, min(claimed, limit))


def frame_headers(ds: Dataset) -> tuple[FrameHeader, ...]:
    """Return one header per image plane of an instance: as many as it has frames, 1 for a classic object."""
    shared = items(ds, "SharedFunctionalGroupsSequence")[:1]
    count = frame_count(ds)
    own = items(ds, "PerFrameFunctionalGroupsSequence")
    if count is None:
        return (FrameHeader(ds, None, _places(own[:1] + shared)),)
    if not own:
        return tuple(FrameHeader(ds, number, _places(shared)) for number in range(1, count + 1))
    return tuple(FrameHeader(ds, number, _places((item, *shared))) for number, item in enumerate(own[:count], start=1))


def frame_header(ds: Dataset, frame_number: int | None) -> FrameHeader:
    """Return the header of one frame, counted from 1; None is for a single-frame object."""
    index = (frame_number or 1) - 1
    own = items(ds, "PerFrameFunctionalGroupsSequence")[index : index + 1]
    return FrameHeader(ds, frame_number, _places(own + items(ds, "SharedFunctionalGroupsSequence")[:1]))


def _places(groups: tuple[Dataset, ...]) -> tuple[Dataset, ...]:
    return groups + tuple(item for group in groups for name in _UNASSIGNED for item in items(group, name)[:1])
