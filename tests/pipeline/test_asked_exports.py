"""Exports that a page asks for: the preview counts what an export by the same filters takes."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.bench import Bench
from support.series import ct_series

from mediqa_node.composition.checkpoint_actions import CheckpointActions
from mediqa_node.config import Settings
from mediqa_node.dicom.deidentify.pseudonyms import Pseudonyms
from mediqa_node.domain.commands import CommandAction, CommandState
from mediqa_node.domain.errors import PromotionRefused
from mediqa_node.pipeline.commands import CommandSweep
from mediqa_node.pipeline.export.asked import AskedExports
from mediqa_node.storage import commands


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A node without images."""
    return Bench(tmp_path / "bench")


@pytest.fixture
def filled(bench: Bench, tmp_path: Path) -> Bench:
    """Three CT series of two scanners and two years."""
    for name, model, day in (("a", "Aera One", "20250310"), ("b", "Aera One", "20260310"), ("c", "Skyra", "20260311")):
        bench.receive_all(
            ct_series(
                tmp_path / name, name, slices=range(8), StationName=f"ROOM_{name}", Manufacturer="BIG MAKER CO",
                ManufacturerModelName=model, StudyDate=day, AcquisitionDate=day, SeriesDate=day,
            ),
            association=name,
        )  # fmt: skip
    bench.pass_time(120.0)
    return bench


def taken(bench: Bench, **arguments: Any) -> list[str]:
    """Return the stations of the series that a preview counts."""
    source: Any = SimpleNamespace(pseudonyms=Pseudonyms(b"k" * 32))
    asked = AskedExports(source=lambda: source, folder=Path("unused"), stopping=lambda: False)
    with bench.database.write() as connection:
        number = commands.ask(
            connection, CommandAction.PREVIEW, {"eligible_only": False, **arguments}, by="curie", at=0.0
        )
    CommandSweep(bench.node, {CommandAction.PREVIEW: asked.preview}).run()
    with bench.database.read() as connection:
        found = commands.find(connection, number)
    assert found is not None
    return [one["scanner"] for one in json.loads(found.result)["strata"]]


def test_a_preview_counts_by_the_dates_and_names_of_an_export(filled: Bench) -> None:
    assert taken(filled) == ["ROOM_a", "ROOM_b", "ROOM_c"]
    assert taken(filled, since="2026-01-01") == ["ROOM_b", "ROOM_c"]
    assert taken(filled, until="2025-12-31") == ["ROOM_a"]
    assert taken(filled, scanners=["aera*"]) == ["ROOM_a", "ROOM_b"]
    assert taken(filled, scanners=["ROOM_[bc]"]) == ["ROOM_b", "ROOM_c"]
    assert taken(filled, scanners=["Ingenia"]) == []


@pytest.mark.parametrize("n", [1, 200])
def test_a_result_is_kept_whole(bench: Bench, n: int) -> None:
    result = json.dumps({"strata": [{"modality": "CT", "scanner": "x" * 64, "train": 1}] * n})
    with bench.database.write() as connection:
        number = commands.ask(connection, CommandAction.PREVIEW, {}, by="curie", at=0.0)

    CommandSweep(bench.node, {CommandAction.PREVIEW: lambda *_: result}).run()

    with bench.database.read() as connection:
        found = commands.find(connection, number)
    assert found is not None
    assert (found.state, json.loads(found.result)) == (CommandState.DONE, json.loads(result))


def test_a_decision_that_is_under_way_ends_with_the_node() -> None:
    looked = 0

    def stopping() -> bool:
        nonlocal looked
        looked += 1
        return looked > 1

    actions = CheckpointActions(Settings(), stopping)
    asleep = ["sleep", "60"]

    with pytest.raises(PromotionRefused, match="the node was stopped; ask again"):
        actions._run(asleep)
    assert looked == 2
