"""One broken series never hides the others: it is refused, and what is wrong with it is named."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from support.bench import StandInScorer
from support.series import ct_series, uid
from support.siblings import before_release

from mediqa_node import config
from mediqa_node.composition import checkpoints
from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.pipeline import offline
from mediqa_node.pipeline.score import Assessor


def edited(paths: list[Path], edit: Callable[[pydicom.Dataset], None]) -> None:
    for path in paths:
        ds = pydicom.dcmread(path)
        edit(ds)
        ds.save_as(path)


def without(keyword: str) -> Callable[[list[Path]], None]:
    return lambda paths: edited(paths, lambda ds: ds.__delattr__(keyword))


def with_value(keyword: str, value: object) -> Callable[[list[Path]], None]:
    return lambda paths: edited(paths, lambda ds: setattr(ds, keyword, value))


def of_unknown_vr(tag: bytes) -> Callable[[list[Path]], None]:
    def bend(paths: list[Path]) -> None:
        for path in paths:
            content = path.read_bytes()
            assert content.count(tag) == 1
            path.write_bytes(content.replace(tag, tag[:4] + b"ZZ"))

    return bend


def cut(paths: list[Path]) -> None:
    for path in paths:
        path.write_bytes(path.read_bytes()[:-1000])


BROKEN: dict[str, Callable[[list[Path]], None]] = {
    "pixels cut short": cut,
    "palette without its table": with_value("PhotometricInterpretation", "PALETTE COLOR"),
    "no rows": without("Rows"),
    "no columns": without("Columns"),
    "no bits allocated": without("BitsAllocated"),
    "no pixel representation": without("PixelRepresentation"),
    "no photometric interpretation": without("PhotometricInterpretation"),
    "no position": without("ImagePositionPatient"),
    "no orientation": without("ImageOrientationPatient"),
    "no spacing": without("PixelSpacing"),
    "no modality": without("Modality"),
    "no patient": without("PatientID"),
    "no date": without("StudyDate"),
    "a station of unknown VR": of_unknown_vr(b"\x08\x00\x10\x10SH"),
    "a date of unknown VR": of_unknown_vr(b"\x08\x00\x20\x00DA"),
    "a name of unknown VR": of_unknown_vr(b"\x10\x00\x10\x00PN"),
    "a kernel of unknown VR": of_unknown_vr(b"\x18\x00\x10\x12SH"),
}
NEVER_SCORED = {"pixels cut short", "palette without its table", "no rows", "no columns", "no bits allocated"}


def scored(*paths: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the results by UID and the reasons for what could not be read."""
    assessor = Assessor(scorer=StandInScorer(), prompts=checkpoints.prompt_rules(config.load(None, {})))
    results, unreadable = offline.score_paths(paths, assessor=lambda: assessor, advance=lambda done, total: None)
    return {result["series_instance_uid"]: result for result in results}, [reason for _, reason in unreadable]


@pytest.mark.usefixtures("one_decoder")
def test_a_healthy_series_is_scored_among_broken_ones(tmp_path: Path) -> None:
    ct_series(tmp_path / "healthy", "healthy", slices=range(2))
    ct_series(tmp_path / "tiny", "tiny", slices=range(2), size_px=8)
    for name, spoil in BROKEN.items():
        spoil(ct_series(tmp_path / name, name, slices=range(2)))

    results, unreadable = scored(tmp_path)

    assert results[uid("series", "healthy")]["not_scored"] is None
    for name in NEVER_SCORED - {"pixels cut short"}:  # its files are refused one by one, as the receiver would
        assert results[uid("series", name)]["reason_code"] in {"unreadable", "undecodable", "implausible"}, name
    assert len([reason for reason in unreadable if "truncated" in reason]) == 2
    assert not [text for text in [*unreadable, *map(str, results.values())] if "Wasser" in text]


ERRORS = [
    NotImplementedError("Unknown Value Representation 'ZZ' in tag (0008,1010): Wasser"),
    *(RecursionError("Wasser"), RuntimeError("Wasser"), MemoryError(), struct.error("Wasser"), AssertionError()),
    *(KeyError("Wasser"), UnicodeDecodeError("ascii", b"Wasser", 0, 1, "x"), StopIteration(), OSError("Wasser")),
]


@pytest.mark.parametrize("step", ["_scanned", *before_release("read_headers", "harvest_series"), "assess"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_a_series_raises_stays_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, step: str
) -> None:
    def raises(*_: object, **__: object) -> None:
        raise error

    ct_series(tmp_path, "broken", slices=[0])
    monkeypatch.setattr(offline, step, raises)

    results, [reason] = scored(tmp_path)

    assert len(results) == (step != "_scanned")
    assert type(error).__name__ in reason or isinstance(error, OSError)
    assert "(0008,1010)" in reason or not isinstance(error, NotImplementedError)
    assert "Wasser" not in reason or isinstance(error, OSError)


def test_weights_that_cannot_be_loaded_end_the_run(tmp_path: Path) -> None:
    def refused() -> Assessor:
        raise CheckpointRefused("no such file")

    ct_series(tmp_path, "series", slices=[0])
    with pytest.raises(CheckpointRefused):
        offline.score_paths([tmp_path], assessor=refused, advance=lambda done, total: None)
