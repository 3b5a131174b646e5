"""Find an attribute of one image plane, wherever its object keeps it.

Multi-frame objects keep their values in functional groups (PS3.3 C.7.6.16). `FrameHeader` asks the
per-frame item first, then the shared one, then what a legacy converter could not place (Unassigned
... Converted Attributes Sequence (0020,9170), (0020,9171)), then the root of the dataset. How values
are read is told in `header_values`; its readers are offered here too.
"""

from dataclasses import dataclass

from pydicom import Dataset
from pydicom.tag import BaseTag

from mediqa_node.dicom.functional_groups import frame_count
from mediqa_node.dicom.header_values import (
    Key,
    codes,
    has_value,
    items,
    number,
    numbers,
    private_creators,
    private_tag,
    text,
    texts,
)

__all__ = [
    "FrameHeader",
    "Key",
    "codes",
    "frame_headers",
    "items",
    "number",
    "numbers",
    "private_creators",
    "private_tag",
    "text",
    "texts",
]

# Which functional group holds an attribute (PS3.3 C.7.6.16, C.8.13.5 for MR, C.8.15.3 for CT).
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
    "MREchoSequence": "EffectiveEchoTime",
    "MRTimingAndRelatedParametersSequence": "RepetitionTime FlipAngle EchoTrainLength RFEchoTrainLength "
    "GradientEchoTrainLength",
    "MRModifierSequence": "InversionRecovery InversionTimes ParallelReductionFactorInPlane "
    "ParallelReductionFactorOutOfPlane PartialFourier",
    "MRAveragesSequence": "NumberOfAverages",
    "MRImagingModifierSequence": "PixelBandwidth TransmitterFrequency",
    "MRReceiveCoilSequence": "ReceiveCoilName ReceiveCoilType",
    "MRFOVGeometrySequence": "MRAcquisitionPhaseEncodingStepsInPlane MRAcquisitionFrequencyEncodingSteps "
    "PercentSampling PercentPhaseFieldOfView",
    "MRDiffusionSequence": "DiffusionBValue",
    "PixelMeasuresSequence": "PixelSpacing SliceThickness",
    "PlanePositionSequence": "ImagePositionPatient",
    "PlaneOrientationSequence": "ImageOrientationPatient",
    "PixelValueTransformationSequence": "RescaleType RescaleIntercept RescaleSlope",
    "FrameVOILUTSequence": "WindowCenter WindowWidth",
    "FrameAnatomySequence": "AnatomicRegionSequence FrameLaterality",
}
_GROUPS_OF: dict[str, list[str]] = {}
for _group, _members in _GROUP_MEMBERS.items():
    for _member in _members.split():
        _GROUPS_OF.setdefault(_member, []).append(_group)

_UNASSIGNED = ("UnassignedPerFrameConvertedAttributesSequence", "UnassignedSharedConvertedAttributesSequence")


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """One image plane and the places where its attributes may be.

    Attributes:
        dataset: the whole instance.
        frame_number: from 1; None for single-frame objects.
        places: further datasets to ask before the root: per-frame item, then shared item.
    """

    dataset: Dataset
    frame_number: int | None = None
    places: tuple[Dataset, ...] = ()

    def holder(self, key: Key) -> Dataset:
        """Return the dataset that answers for an attribute: a functional group's item, or the root."""
        groups = _GROUPS_OF.get(key, []) if isinstance(key, str) else []
        for place in self.places:
            for candidate in (*(item for group in groups for item in items(place, group)[:1]), place):
                if has_value(candidate, key):
                    return candidate
        unassigned = (item for place in self.places for name in _UNASSIGNED for item in items(place, name)[:1])
        return next((item for item in unassigned if has_value(item, key)), self.dataset)

    def numbers(self, key: Key, *, signed: bool = False) -> tuple[float, ...]:
        """As `numbers`, wherever the attribute is."""
        return numbers(self.holder(key), key, signed=signed)

    def number(self, key: Key, *, signed: bool = False, flags: list[str] | None = None) -> float | None:
        """As `number`, wherever the attribute is."""
        return number(self.holder(key), key, signed=signed, flags=flags)

    def text(self, key: Key) -> str:
        """As `text`, wherever the attribute is."""
        return text(self.holder(key), key)

    def codes(self, key: Key) -> tuple[str, ...]:
        """As `codes`, wherever the attribute is."""
        return codes(self.holder(key), key)

    def items(self, key: Key) -> tuple[Dataset, ...]:
        """As `items`, wherever the sequence is."""
        return items(self.holder(key), key)

    def private(self, group: int, creator: str, element: int) -> tuple[Dataset, BaseTag] | None:
        """Return where a private element is, found by creator in any place, or None."""
        unassigned = (item for place in self.places for name in _UNASSIGNED for item in items(place, name)[:1])
        for place in (*self.places, *unassigned, self.dataset):
            if (tag := private_tag(place, group, creator, element)) is not None:
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


def frame_headers(ds: Dataset) -> tuple[FrameHeader, ...]:
    """Return one header per image plane of an instance: as many as it has frames, 1 for a classic object."""
    shared = items(ds, "SharedFunctionalGroupsSequence")[:1]
    count = frame_count(ds)
    if count is None:
        return (FrameHeader(ds, None, shared),)
    own: tuple[Dataset | None, ...] = items(ds, "PerFrameFunctionalGroupsSequence") or (None,) * count
    return tuple(
        FrameHeader(ds, index, shared if item is None else (item, *shared))
        for index, item in enumerate(own[:count], start=1)
    )
