"""The loop as a physicist runs it: images in, weights trained on them, promoted, and the next report names them.

    pytest -m acceptance tests/acceptance/test_training_loop.py --collection DIR

48 simulated series: of the collection, or without one of tests/data, whose few sources count as several patients each.
Few steps: what is tried is the way, not the score.
"""

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from acceptance.collection import TESTS, image_sets
from support.node import Node
from support.orthanc import Orthanc
from support.senders import proposal, storescu
from support.waiting import need, until

from mediqa_node.storage import index
from mediqa_node.storage.index import SeriesRow
from training.data.collection import ImageSet
from training.simulate.series import LABELS_FILE, Labelled, write_series

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.peers,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore::UserWarning:pydicom"),
]
ENDED = {"DELIVERED", "CONFIRMED", "NOT_SCORED", "WITHHELD", "PARKED"}
STEPS = 4
SEED = 1
BASES = ("ct_sts003_lowdose", "ct_sts036_lowdose", "mr_breast_ucsf06")
SERIES = 48


@dataclass(frozen=True, slots=True)
class Loop:
    """A node that has received everything, an archive that has its reports, and the folder of simulated series."""

    node: Node
    pacs: Orthanc
    simulated: Path
    folder: Path

    def says(self, *command: object) -> str:
        """Run a command of the node; it must succeed."""
        return _said(self.node.command(*map(str, command)))

    def trains(self, *command: object) -> str:
        """Run a command of the training; it must succeed."""
        line = [sys.executable, "-m", "training", *map(str, command)]
        return _said(subprocess.run(line, capture_output=True, text=True, timeout=1800, check=False))


def _said(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def loop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    need(request.config, "/usr/bin/storescu", "/usr/sbin/Orthanc")
    named = request.config.getoption("--collection", None) or os.environ.get("MEDIQA_COLLECTION")
    folder = tmp_path_factory.mktemp("loop")
    pacs = Orthanc(folder / "pacs").start()
    peer = {"ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.dicom_port}
    node = Node(folder / "node", peers={"PACS": peer})
    try:
        made = Loop(node, pacs, folder / "simulated", folder)
        _simulate(Path(named) if named else None, made)
        node.start()
        for each in image_sets(Path(named) if named else None, folder / "made"):
            _send(node, each.paths, options=proposal(each.paths[0]))
        _send(node, sorted(made.simulated.rglob("*.dcm")))
        until(lambda: all(row.state in ENDED for row in _series(node)), "every series ends", within_s=1500, every_s=1)
        yield made
    finally:
        node.close()
        pacs.stop()


def _simulate(collection: Path | None, loop: Loop) -> None:
    if collection is not None:
        manifest = collection / "manifest.json"
        asked = ("--collection", collection, "--manifest", manifest, "--out", loop.simulated)
        loop.trains("simulate", "--dicom", "--series", SERIES, *asked)
        return
    _simulated_of_tests(loop.simulated, series=SERIES, seed=1)


def _simulated_of_tests(out: Path, *, series: int, seed: int) -> list[Labelled]:
    patients = [(name, n) for name in BASES for n in range(series // 6 or 1)]
    sets = [
        ImageSet(name=name, folder=TESTS / "data" / name, source=f"{name}-{n}", split="dev") for name, n in patients
    ]
    return write_series(sets, out, series=series, seed=seed, processes=2, advance=lambda *_: None)


def _send(node: Node, paths: "list[Path] | tuple[Path, ...]", *, options: "list[str] | tuple[str, ...]" = ()) -> None:
    statuses = storescu(node.port, paths, options=options)
    assert [path for path in paths if statuses.get(path) != 0x0000] == []


def _series(node: Node) -> list[SeriesRow]:
    with node.database.read() as connection:
        return list(index.series_in(connection))


def _rows(export: Path) -> list[dict[str, str]]:
    with (export / "manifest.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def _sides(rows: list[dict[str, str]]) -> dict[str, set[str]]:
    return {split: {row["patient_key"] for row in rows if row["split"] == split} for split in ("train", "val", "test")}


def test_from_received_images_to_weights_that_the_next_report_names(loop: Loop, capsys: pytest.CaptureFixture[str]):
    node, at = loop.node, loop.folder
    labelled = len((loop.simulated / LABELS_FILE).read_text().splitlines()) - 1
    steps = ("--steps", STEPS, "--resplit", SEED)

    told = [
        loop.says("export", at / "first", "--payload", "npz"),
        loop.trains("pretrain", at / "first", "--out", at / "stage1", *steps),
        loop.says("annotations", "import", loop.simulated / LABELS_FILE, "--by", "physicist"),
        loop.says("export", at / "second", "--payload", "npz"),
        loop.trains("finetune", at / "second", "--begin", at / "stage1", "--out", at / "stage2", *steps),
        loop.trains("card", at / "stage2", "--plain", "--name", "loop", "--out", at / "checkpoint"),
        loop.trains("evaluate", at / f"second-stage2-resplit{SEED}-samples", "--checkpoint", at / "checkpoint"),
        loop.says("model", "promote", at / "checkpoint", "--unevaluated", "--by", "physicist", "--reason", "trial"),
    ]
    with capsys.disabled():
        print("\n" + "\n".join(told))  # noqa: T201 (the answers are what this run is for)

    first, second = _rows(at / "first"), _rows(at / "second")
    sides = _sides(second)
    assert not (sides["train"] & sides["val"] or sides["train"] & sides["test"] or sides["val"] & sides["test"])
    assert {row["series_key"]: row["split"] for row in first}.items() <= {
        row["series_key"]: row["split"] for row in second
    }.items()
    left_out = (at / "second" / "excluded.csv").read_text().count("split_conflict")  # copies alike under two patients
    assert labelled - left_out <= sum(bool(row["mos_norm"]) for row in second) <= labelled == SERIES
    assert len({row["label_value"] for row in second if row["label_name"] == "mas" and row["mos_norm"]}) >= 3
    assert len({row["label_value"] for row in second if row["label_name"] == "tesla" and row["mos_norm"]}) >= 2

    digest = next(line.split()[-1] for line in told[5].splitlines() if line.startswith("wrote"))
    known = {entry["ID"] for entry in loop.pacs.find("Instance", Modality="SR")}
    until(lambda: node.log("scoring")[-1]["weights"] == digest, "the worker has taken the weights up", within_s=120)
    [next_one] = _simulated_of_tests(at / "next", series=1, seed=2)
    _send(node, sorted((at / "next").rglob("*.dcm")))
    uid = next_one.series_uid
    node.reaches(uid, "DELIVERED", "CONFIRMED", within_s=120)
    [report] = [e["ID"] for e in loop.pacs.find("Instance", Modality="SR") if e["ID"] not in known]
    assert digest.encode() in loop.pacs.file(report)
