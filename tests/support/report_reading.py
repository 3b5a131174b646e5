"""Read a report as any program would: by codes, never by position."""

import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from io import BytesIO

import pydicom
from pydicom import Dataset

from mediqa_node.dicom.report import codes
from mediqa_node.dicom.report.build import ReportRequest, build_report, report_bytes


def walk(item: Dataset) -> Iterator[Dataset]:
    yield item
    for child in item.get("ContentSequence", ()):
        yield from walk(child)


def name(item: Dataset) -> tuple[str, str]:
    concept = item.ConceptNameCodeSequence[0]
    return concept.CodeValue, concept.CodingSchemeDesignator


def children(item: Dataset, code: codes.Code) -> list[Dataset]:
    return [child for child in item.get("ContentSequence", ()) if name(child) == code[:2]]


def groups(report: Dataset) -> dict[str, Dataset]:
    [measurements] = children(report, codes.MEASUREMENTS)
    return {children(g, codes.TRACKING_ID)[0].TextValue: g for g in measurements.ContentSequence}


def number(item: Dataset, code: codes.Code) -> Decimal:
    """The exact value, where there is one."""
    [found] = children(item, code)
    measured = found.MeasuredValueSequence[0]
    return Decimal(repr(measured.FloatingPointValue)) if "FloatingPointValue" in measured else Decimal(text(item, code))


def text(item: Dataset, code: codes.Code) -> str:
    """A number as a viewer shows it."""
    [found] = children(item, code)
    return str(found.MeasuredValueSequence[0].NumericValue)


def coded_value(item: Dataset, code: codes.Code) -> str:
    [found] = children(item, code)
    return found.ConceptCodeSequence[0].CodeValue


def parsed(request: ReportRequest) -> Dataset:
    return pydicom.dcmread(BytesIO(report_bytes(build_report(request))))


def with_assessment(request: ReportRequest, **changes: object) -> ReportRequest:
    return replace(request, assessment=replace(request.assessment, **changes))


def comment(report: Dataset) -> str:
    [text] = children(children(report, codes.QUALITATIVE_EVALUATIONS)[0], codes.COMMENT)
    return text.TextValue


def tree_text(report: Dataset) -> str:
    """The tree as lines, instance-specific UIDs masked."""
    lines = [f"{k}: {report[k].value}" for k in ("PatientName", "SeriesDescription", "CompletionFlag", "ContentTime")]

    def show(item: Dataset, depth: int) -> None:
        concept = item.ConceptNameCodeSequence[0]
        value = {
            "CONTAINER": lambda: item.ContinuityOfContent,
            "CODE": lambda: "(" + ", ".join(e.value for e in item.ConceptCodeSequence[0]) + ")",
            "TEXT": lambda: '"' + item.TextValue.replace("\r\n", " // ") + '"',
            "UIDREF": lambda: "<uid>",
            "DATE": lambda: item.Date,
            "NUM": lambda: (
                f"{item.MeasuredValueSequence[0].NumericValue} "
                f"{item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue}"
                f" exact {item.MeasuredValueSequence[0].get('FloatingPointValue', 'so')}"
            ),
            "IMAGE": lambda: str(item.ReferencedSOPSequence[0].get("ReferencedFrameNumber", "whole")),
        }[item.ValueType]()
        relation = item.get("RelationshipType", "ROOT")
        label = f"({concept.CodeValue}, {concept.CodingSchemeDesignator}, {concept.CodeMeaning})"
        lines.append(f"{'  ' * depth}{relation} {item.ValueType} {label} = {value}")
        for child in item.get("ContentSequence", ()):
            show(child, depth + 1)

    show(report, 0)
    return re.sub(r"\b2\.25\.\d+", "<uid>", "\n".join(lines)) + "\n"
