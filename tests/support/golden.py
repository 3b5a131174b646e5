"""What the node makes of an image set, as values that a change of structure must leave alone.

    python -m support.golden OUT.json [--collection DIR] [--digests FILE]     (from the folder `tests`)

Technique, stacks, prompts, raw scores to the last bit and the bytes of a report with a pinned device, version and
time. `tests/house/test_goldens.py` compares digests of them with `tests/golden/*.json`; the file that this command
writes holds the values themselves, so that two versions can be compared with `diff`.
"""

import argparse
import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import pydicom
from acceptance.collection import ImageSet, image_sets

from mediqa_node.composition.checkpoints import open_active
from mediqa_node.config import Settings
from mediqa_node.dicom.prompts import prompt_from_header
from mediqa_node.dicom.report.build import build_report, report_bytes
from mediqa_node.dicom.report.request import ReportDevice, ReportRequest
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.errors import NotScorable
from mediqa_node.domain.implementation import IMPLEMENTATION_VERSION_NAME
from mediqa_node.domain.preprocessing import NetworkInput
from mediqa_node.domain.prompt import Prompt
from mediqa_node.domain.recall import Recall
from mediqa_node.domain.scoring import ScoredSlices, Scorer
from mediqa_node.pipeline.measures import measure_series
from mediqa_node.pipeline.score import Assessor, SeriesFiles, assess, harvest_series, read_headers

ASSESSED_AT = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
DEVICE = ReportDevice(
    ae_title="MEDIQA1",
    device_uid="2.25.219635923986581790811188233710098332659",
    serial_number="SN0001",
    software_version="golden",
)

Golden = dict[str, Any]


class Unscored:
    """A scorer that is asked whether it knows such images, and says nothing of them."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scorer, name)

    def recalling(self, recall: Recall) -> Self:
        """Compute everything."""
        return self

    def score(self, inputs: NetworkInput, prompt: Prompt) -> ScoredSlices:
        """Return zeros."""
        zeros = np.zeros(inputs.n_slices)
        return ScoredSlices(raw=zeros, quality=zeros, weights=np.full(inputs.n_slices, 1 / inputs.n_slices), maps=None)


def goldens(collection: Path | None, *, scored: bool = True) -> dict[str, Golden]:
    """Return the goldens of every series, by set and the end of its UID.

    Args:
        scored: False saves the time of the network; scores, quality and report then mean nothing.
    """
    assessor = open_active(Settings())
    if not scored:
        assessor = replace(assessor, scorer=Unscored(assessor.scorer))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for each in image_sets(collection, Path(folder)):
            for uid, paths in _series(each):
                found[f"{each.name}/{uid[-8:]}"] = golden(paths, assessor)
    return found


def _series(each: ImageSet) -> Iterator[tuple[str, list[Path]]]:
    of_series: dict[str, list[Path]] = {}
    for path in each.paths:
        of_series.setdefault(str(pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID), []).append(path)
    yield from sorted(of_series.items())


def golden(paths: list[Path], assessor: Assessor) -> Golden:
    """Harvest, assess and report one series."""
    files = read_headers(paths)
    technique = harvest_series(files)
    found: Golden = {"technique": asdict(technique)}
    try:
        stacks = assemble_stacks(files.headers)
        found["stacks"] = [asdict(stack) for stack in stacks]
        found["prompts"] = [asdict(prompt_from_header(files.headers, stack, assessor.prompts)) for stack in stacks]
        assessment = assess(files, technique, assessor, revision=1, assessed_at=ASSESSED_AT)
    except NotScorable as reason:
        return {**found, "not_scored": str(reason.code)}
    results = (assessment.primary, *assessment.others)
    return {
        **found,
        "measures": _measures(files, assessor),
        "scores": [[part.raw.hex() for part in result.slices] for result in results],
        "quality": [result.quality.hex() for result in results if result.quality is not None],
        "report": hashlib.sha256(_report(assessment, files)).hexdigest(),
    }


def _measures(files: SeriesFiles, assessor: Assessor) -> dict[str, Any]:
    """Return what is measured: a value that changes without a new version of its method is a fault."""
    if isinstance(assessor.scorer, Unscored):
        return {}
    measured = measure_series(files, harvest_series(files), assessor.prompts)
    known = measured.measures if measured is not None else ()
    return {one.name: (one.value, one.validity, one.limit, one.method.name, one.method.version) for one in known}


def _report(assessment: Assessment, files: SeriesFiles) -> bytes:
    """Return the report as the node would write it, but for what changes from run to run."""
    timeless = replace(assessment, checkpoint=replace(assessment.checkpoint, execution="golden"))
    request = ReportRequest(
        assessment=timeless,
        sources=files.headers,
        device=DEVICE,
        series_number=9000,
        instance_number=1,
        created_at=ASSESSED_AT,
    )
    return report_bytes(build_report(request)).replace(IMPLEMENTATION_VERSION_NAME.encode(), b"MEDIQA_NODE_010")


def digests(found: dict[str, Golden]) -> dict[str, dict[str, str]]:
    """Return a short digest of every part of the goldens."""
    return {uid: {part: _digest(value) for part, value in of.items()} for uid, of in found.items()}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(_rounded(value), sort_keys=True, default=str).encode()).hexdigest()[:16]


def _rounded(value: Any) -> Any:
    """Return a value with ten digits of each number: a processor has a part in the last ones of a position."""
    if isinstance(value, dict):
        return {key: _rounded(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(member) for member in value]
    return float(f"{value:.10g}") if isinstance(value, float) else value


def main() -> None:
    """Write the goldens of the clone, or of a collection, to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--collection", type=Path)
    parser.add_argument("--digests", type=Path)
    arguments = parser.parse_args()
    found = goldens(arguments.collection)
    arguments.out.write_text(json.dumps(found, sort_keys=True, indent=1, default=str) + "\n", encoding="utf-8")
    if arguments.digests:
        text = json.dumps(digests(found), sort_keys=True, indent=1)
        arguments.digests.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
