"""`mediqa-node baseline` and `measures`: from measured series to an approved baseline and a table of exams."""

import csv
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from support.command import invoke_in
from support.measured import index_series, measured_stack, measures

from mediqa_node.domain.measures import MeasuredStack
from mediqa_node.domain.quantities import QUANTITIES
from mediqa_node.storage import measures as stored
from mediqa_node.storage.database import Database
from mediqa_node.storage.migrate import upgrade

TODAY = datetime.now(UTC).date()
Keep = Callable[..., Path]


@pytest.fixture
def node(tmp_path: Path) -> Callable[[list[MeasuredStack]], Path]:
    """Make a node's folder with a database that holds these measures."""

    def keep(series: list[MeasuredStack]) -> Path:
        (tmp_path / "node.yaml").write_text(yaml.safe_dump({"node": {"data_dir": "var"}}))
        database = Database(f"sqlite:///{tmp_path / 'var' / 'node.db'}")
        upgrade(database)
        with database.write() as connection:
            for one in series:
                stored.save(connection, one, generation=1)
                index_series(connection, one)
        database.close()
        return tmp_path

    return keep


def chests(n: int, **changes: object) -> list[MeasuredStack]:
    return [
        measured_stack(
            series_instance_uid=f"1.2.3.{i}",
            study_instance_uid=f"1.2.{i}",
            measures=measures(10 + i % 5),
            **changes,
        )
        for i in range(n)
    ]


def test_a_baseline_is_made_approved_shown_and_withdrawn(node: Keep) -> None:
    folder = node(chests(34))
    since = (TODAY - timedelta(days=1)).isoformat()

    made = invoke_in(folder, "baseline", "make", "--since", since, "--by", "Curie")
    early = invoke_in(folder, "baseline", "show")
    approved = invoke_in(folder, "baseline", "approve", 1, "--by", "Curie")
    shown = invoke_in(folder, "baseline", "show", "--json")
    listed = invoke_in(folder, "baseline", "list")
    withdrawn = invoke_in(folder, "baseline", "withdraw", 1, "--by", "Curie")
    again = invoke_in(folder, "baseline", "withdraw", 1, "--by", "Curie")

    assert made.returncode == 0, made.stderr
    assert "ct.noise.soft" in made.stdout
    assert "→ mediqa-node baseline approve 1 --by NAME" in made.stdout
    assert (early.returncode, early.stderr.strip()) == (1, "no baseline is approved")
    assert (approved.returncode, approved.stdout.strip()) == (0, "baseline 1 is used from now on")
    found = json.loads(shown.stdout)
    noise = next(one for one in found["usual"] if one["name"] == "ct.noise.soft")
    assert (found["approved_by"], noise["n"], noise["median"]) == ("Curie", 34, 12.0)
    assert "approved" in listed.stdout
    assert (withdrawn.returncode, again.returncode) == (0, 1)


def test_too_few_series_make_no_baseline_and_say_so(node: Keep) -> None:
    made = invoke_in(node(chests(29)), "baseline", "make", "--since", "2026-01-01", "--by", "Curie")

    assert made.returncode == 1
    assert "of 29 measured series" in made.stderr
    assert invoke_in(node([]), "baseline", "list").stdout.startswith("no baseline;")


@pytest.mark.parametrize("since", ["yesterday", "2999-01-01"])
def test_a_period_that_is_none_is_refused(node: Keep, since: str) -> None:
    refused = invoke_in(node(chests(1)), "baseline", "make", "--since", since, "--by", "Curie")

    assert refused.returncode == 2
    assert since in refused.stderr


def test_exams_are_written_as_a_table_that_says_what_it_is_not(node: Keep) -> None:
    mr = measured_stack(series_instance_uid="1.9", modality="MR")
    formula = measured_stack(series_instance_uid="1.2.3.9", protocol="=cmd|' /C calc'!A0")
    folder = node([*chests(2), mr, formula])

    done = invoke_in(folder, "measures", "exams", "exams.csv")
    again = invoke_in(folder, "measures", "exams", "exams.csv")
    forced = invoke_in(folder, "measures", "exams", "exams.csv", "--force")

    assert (done.returncode, again.returncode, forced.returncode) == (0, 2, 0), done.stderr
    assert done.stdout.strip() == "3 CT series in exams.csv"
    note, *lines = (folder / "exams.csv").read_text().splitlines()
    assert note.startswith("# not the eCQM calculation")
    rows = list(csv.DictReader(lines))
    assert [row["series_instance_uid"] for row in rows] == ["1.2.3.0", "1.2.3.1", "1.2.3.9"]
    assert rows[0]["noise_hu"] == "10.0"
    assert (rows[0]["dw_mm"], rows[0]["ctdi_vol_mgy"], rows[0]["ssde_mgy"]) == ("290.0", "8.5", "")
    assert rows[0]["reasons"].startswith("ct.ssde: CTDIvol refers to no stated phantom")
    assert (rows[0]["kernel"], rows[0]["slice_thickness_mm"], rows[0]["ctdi_phantom_cm"]) == ("B31f", "5.0", "32.0")
    assert rows[2]["protocol"] == "'=cmd|' /C calc'!A0"


def test_a_period_without_series_gives_the_heads_alone(node: Keep) -> None:
    folder = node(chests(2))

    assert (
        invoke_in(folder, "measures", "exams", "none.csv", "--until", "2020-01-01").stdout.strip()
        == "0 CT series in none.csv"
    )
    assert len((folder / "none.csv").read_text().splitlines()) == 2


def test_the_catalogue_names_unit_definition_and_method_of_every_measure(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text("{}")

    shown = invoke_in(tmp_path, "measures", "list").stdout
    listed = json.loads(invoke_in(tmp_path, "measures", "list", "--json").stdout)

    assert {one["name"] for one in listed} == set(QUANTITIES)
    for one in QUANTITIES.values():
        assert one.name in shown
        assert one.definition in shown
        assert str(one.method) in shown
