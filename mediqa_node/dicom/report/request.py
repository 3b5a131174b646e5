"""The input of a report, complete so that the same request gives the same bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from pydicom import Dataset

from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.baseline import Usual
from mediqa_node.domain.measures import MeasuredStack

SOP_CLASSES = {
    "comprehensive3d": "1.2.840.10008.5.1.4.1.1.88.34",
    "comprehensive": "1.2.840.10008.5.1.4.1.1.88.33",
    "enhanced": "1.2.840.10008.5.1.4.1.1.88.22",
}
"""SR classes from the default to the last fallback; the same tree is legal in all three."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportDevice:
    """This installation, as TID 1004 and General Equipment (PS3.3 C.7.5.1) name it.

    Attributes:
        ae_title: Device Observer Name.
        device_uid: fixed per installation.
    """

    ae_title: str
    device_uid: str
    serial_number: str
    software_version: str
    manufacturer: str = "MedIQA project"
    model_name: str = "MedIQA"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """One report of one series.

    Attributes:
        sources: headers of all instances of the series, scored or not.
        series_number, instance_number: (0020,0011), (0020,0013), allocated by the caller per study.
        created_at: timezone-aware, from the job's record, never from the clock.
        predecessor: the report that this one revises.
        sop_class: a key of SOP_CLASSES.
        time_zone: of the site, used if the source has none in (0008,0201).
        predicted_parameters, measured, usual: see `content_tree`.
    """

    assessment: Assessment
    sources: Sequence[Dataset]
    device: ReportDevice
    series_number: int
    instance_number: int
    created_at: datetime
    predecessor: Dataset | None = None
    sop_class: str = "comprehensive3d"
    time_zone: tzinfo = UTC
    predicted_parameters: bool = False
    measured: MeasuredStack | None = None
    usual: Sequence[Usual] = ()
