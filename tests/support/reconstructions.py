"""Headers of two series of one study that are a pair, but for what a test changes in one of them."""

from collections.abc import Sequence
from typing import Any

from pydicom import Dataset

from mediqa_node.dicom.prompt_rules import default_rules
from mediqa_node.dicom.series_pairs import SeriesFacts, pairs_in
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.dicom.technique.harvest import harvest
from mediqa_node.dicom.technique.pair_facts import has_contrast, may_pair, pair_facts
from mediqa_node.pipeline.policy import acquisition_of
from support.header_builders import CT, MR, series

_BOTH = {
    "PatientID": "P1",
    "IssuerOfPatientID": "HOSPITAL",
    "FrameOfReferenceUID": "1.2.9",
    "StationName": "ROOM_3",
    "ManufacturerModelName": "Scanner 64",
    "AcquisitionDate": "20261120",
    "AcquisitionTime": "101500",
    "AcquisitionNumber": 2,
}


def ct(number: int, **changes: Any) -> list[Dataset]:
    """Return an unenhanced CT series of Siemens, of one acquisition; None removes an element."""
    known = {
        **_BOTH,
        "Manufacturer": "SIEMENS",
        "SeriesDescription": "Thorax",
        "ProtocolName": "Thorax Routine",
        "IrradiationEventUID": "1.2.8.1",
        "KVP": 120,
        "ConvolutionKernel": "B31f",
        "XRayTubeCurrent": 200,
        "ExposureTime": 500,
        "Exposure": 100,
    }
    return _series(CT, number, known | changes)


def mr(number: int, **changes: Any) -> list[Dataset]:
    """Return an MR series of a spin echo without contrast agent."""
    known = {
        **_BOTH,
        "Manufacturer": "SIEMENS",
        "SeriesDescription": "t2_tse_tra",
        "ProtocolName": "t2_tse_tra",
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
        "MagneticFieldStrength": 1.5,
        "EchoTime": 90,
        "RepetitionTime": 4000,
        "FlipAngle": 150,
        "NumberOfAverages": 2,
        "SequenceName": "*tse2d1_15",
        "ScanningSequence": "SE",
    }
    return _series(MR, number, known | changes)


def _series(sop_class: str, number: int, values: dict[str, Any]) -> list[Dataset]:
    gone = [key for key, value in values.items() if value is None]
    headers = series(sop_class, **{key: value for key, value in values.items() if value is not None})
    for index, header in enumerate(headers):
        header.SeriesInstanceUID, header.SOPInstanceUID = f"1.2.2.{number}", f"1.2.3.{number}.{index + 1}"
        for key in gone:
            if key in header:
                delattr(header, key)
    return headers


def facts(headers: Sequence[Dataset]) -> SeriesFacts:
    """Return what decides about pairs with a series, read as a self-check reads it."""
    stacks, technique = list(assemble_stacks(headers)), harvest(headers)
    first = headers[stacks[0].frames[0].instance_index]
    found = pair_facts(
        first, stacks[0], technique, default_rules(), n_stacks=len(stacks), acquisition=acquisition_of([first])
    )
    assert found is not None
    return found


def kinds(*study: Sequence[Dataset]) -> dict[str, tuple[str, str]]:
    """Return the pairs among the series of a study: the last digits of the better and of the other one, by kind."""
    techniques = [harvest(headers) for headers in study]
    fit = [
        facts(headers)
        for headers, one in zip(study, techniques, strict=True)
        if any(one is not other and may_pair(one, other) for other in techniques)
    ]
    found = pairs_in(fit, contrast=any(map(has_contrast, techniques)))
    return {str(pair.kind): (pair.better[-1], pair.worse[-1]) for pair in found}
