"""`mediqa-node annotations`: what it says of a table, its exit status, and that a killed import leaves nothing."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.bench import Bench
from support.command import invoke_in
from support.series import ct_series, series_uid

from mediqa_node import config
from mediqa_node.composition import resources
from mediqa_node.exchange.rating_table import Layout
from mediqa_node.pipeline.ratings import report, take_in
from mediqa_node.storage import index, ratings
from mediqa_node.storage.database import Database


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A node that has received twelve series of six patients, and their UIDs."""
    folder = tmp_path_factory.mktemp("node")
    bench = Bench(folder / "var")
    uids = []
    for i in range(12):
        paths = ct_series(folder / f"s{i}", f"s{i}", slices=[0], study=f"study {i}", patient_id=f"P{i // 2}")
        bench.receive_all(paths, association=f"a{i}")
        uids.append(series_uid(paths))
    bench.close()
    (folder / "node.yaml").write_text(yaml.safe_dump({"retention": {"low_water_bytes": 0}}))
    return folder, uids


def table(uids: list[str], *, study: str, readers: int = 3) -> str:
    chance = random.Random(study)
    head = "series_uid,reader_id,score,scale_min,scale_max,scale_direction,study_id\n"
    return head + "".join(
        f"{uid},r{k},{min(max(1 + i * 4 / 11 + chance.gauss(0, 0.4), 1), 5):.2f},1,5,higher_better,{study}\n"
        for i, uid in enumerate(uids)
        for k in range(readers)
    )


def test_a_table_is_tried_imported_known_and_reported(kept: tuple[Path, list[str]]) -> None:
    folder, uids = kept
    (folder / "scores.csv").write_text(table(uids, study="main"))

    tried = invoke_in(folder, "annotations", "import", "scores.csv", "--dry-run")
    done = invoke_in(folder, "annotations", "import", "scores.csv", "--by", "Dr. Curie")
    again = invoke_in(folder, "annotations", "import", "scores.csv")

    assert [result.returncode for result in (tried, done, again)] == [0, 0, 0], done.stderr
    assert tried.stdout.splitlines()[0] == "good        36 ratings of 12 series by 3 readers would be imported"
    assert done.stdout.splitlines()[0].startswith("imported    36 ratings of 12 series by 3 readers, as import ")
    assert again.stdout.startswith("known       import ")
    listed = json.loads(invoke_in(folder, "annotations", "list", "--json").stdout)
    assert [(one["imported_by"], one["n_ratings"]) for one in listed] == [("Dr. Curie", 36)]

    shown = invoke_in(folder, "annotations", "report", "--readers")
    [found] = json.loads(invoke_in(folder, "annotations", "report", "--json").stdout)
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[1].split()[:5] == ["main", "overall", "12", "6", "3"]
    assert (found["agreement"]["n_series"], found["agreement"]["n_patients"]) == (12, 6)
    assert 0.8 < found["agreement"]["icc_2_1"]["value"] < found["agreement"]["icc_2_k"]["value"] < 1
    assert found["agreement"]["readers"][0]["repeat_sd"] is None


def test_series_whose_patient_nobody_knows_any_more_are_counted(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    uids = []
    for i in range(6):
        paths = ct_series(tmp_path / f"s{i}", f"s{i}", slices=[0], study=f"study {i}", patient_id=f"P{i // 2}")
        bench.receive_all(paths, association=f"a{i}")
        uids.append(series_uid(paths))
    outcome = take_in(bench.database, table(uids, study="main").encode(), Layout(), by="x", at=1.0)
    with bench.database.read() as connection:
        [gone] = index.current_instances(connection, uids[0])
    bench.spool.path(gone.path).unlink()
    steps: list[tuple[int, int]] = []

    [found] = report(bench.database, bench.spool, advance=lambda done, of: steps.append((done, of)))

    bench.close()
    assert outcome.problems == ()
    assert found.agreement.n_patients == 4, "the study of the first stands for its patient"
    assert any(text.startswith("1 of 6 series no longer name their patient") for text in found.agreement.warnings)
    assert steps == [(i, 6) for i in range(1, 7)]


def test_problems_are_named_by_their_rows_and_nothing_is_imported(kept: tuple[Path, list[str]]) -> None:
    folder, uids = kept
    bad = table(uids[:2], study="bad").replace(uids[0], "9.9") + f"{uids[1]},r9,77,1,5,higher_better,bad\n"
    (folder / "bad.csv").write_text(bad)

    result = invoke_in(folder, "annotations", "import", "bad.csv")

    assert result.returncode == 1
    assert result.stdout.splitlines()[0] == "refused     4 problems; nothing was imported"
    assert "  8  score 77 is outside the scale 1 to 5" in result.stdout
    assert "9.9: this node keeps no such series" in result.stdout


def test_a_wide_table_is_read_by_the_names_that_are_given(kept: tuple[Path, list[str]]) -> None:
    folder, uids = kept
    (folder / "wide.csv").write_text("Fall;A;B\n" + "".join(f"{uid};3,5;4\n" for uid in uids))
    scale = [f"--value={pair}" for pair in ("scale_min=1", "scale_max=5", "scale_direction=lower_better", "study_id=w")]

    readers = ("--reader", "A", "--reader", "B", "--column", "series_uid=Fall")
    result = invoke_in(folder, "annotations", "import", "wide.csv", "--dry-run", *readers, *scale)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "24 ratings of 12 series by 2 readers would be imported" in result.stdout
    assert "note        reader A gives every series 3.5 for overall" in result.stdout


def test_readers_of_an_export_name_series_by_its_keys(kept: tuple[Path, list[str]]) -> None:
    folder, uids = kept
    settings = config.load(folder / "node.yaml", {})
    text = table(uids, study="blind").replace("series_uid", "series_key")
    (folder / "blind.csv").write_text(text)
    unknown = invoke_in(folder, "annotations", "import", "blind.csv")
    database = resources.open_database(settings)
    pseudonyms = resources.export_source(settings, database).pseudonyms
    database.close()
    for uid in uids:
        text = text.replace(f"{uid},", f"{pseudonyms.key('series', uid)},")
    (folder / "blind.csv").write_text(text)

    result = invoke_in(folder, "annotations", "import", "blind.csv")

    assert (unknown.returncode, "no column names the series: series_uid" in unknown.stdout) == (1, True)
    assert result.stdout.startswith("imported    36 ratings of 12 series by 3 readers")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["import", "none.csv"], 2, "does not exist"),
        (["import", "empty.csv", "--value", "scale_min"], 2, "must be NAME=SOMETHING"),
        (["import", "empty.csv", "--value", "scale=1"], 1, "no column is called 'scale'"),
        (["import", "empty.csv"], 1, "hold headings"),
        (["withdraw", "99"], 2, "no import 99 is in use"),
    ],
)
def test_what_cannot_be_says_why(kept: tuple[Path, list[str]], arguments: list[str], status: int, said: str) -> None:
    (kept[0] / "empty.csv").write_text("")

    result = invoke_in(kept[0], "annotations", *arguments)

    assert (result.returncode, said in result.stderr) == (status, True), result.stderr


def test_a_killed_import_leaves_nothing_and_the_next_takes_in_all(kept: tuple[Path, list[str]]) -> None:
    folder, uids = kept
    (folder / "killed.csv").write_text(table(uids, study="killed"))
    (token := folder / "token").touch()
    command = [sys.executable, "-m", "mediqa_node", "-c", "node.yaml", "annotations", "import", "killed.csv"]
    environment = os.environ | {"MEDIQA_FAILPOINT": f"before-rating-commit@{token}"}

    killed = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    left = _of_study(folder, "killed")
    again = invoke_in(folder, "annotations", "import", "killed.csv")

    assert killed.returncode == -signal.SIGKILL
    assert left == 0
    assert again.stdout.startswith("imported    36 ratings")
    assert _of_study(folder, "killed") == 36


def _of_study(folder: Path, study: str) -> int:
    database = Database(f"sqlite:///{folder / 'var' / 'node.db'}")
    with database.read() as connection:
        found = sum(row.rating.study_id == study for row in ratings.kept(connection))
    database.close()
    return found
