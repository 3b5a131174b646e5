"""`mediqa-node doctor`: what it finds well, and what it says where something is not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml
from support.command import invoke_in

from mediqa_node import config, doctor, service
from mediqa_node.composition import resources
from mediqa_node.doctor import Finding
from mediqa_node.domain.constancy import Identity, compare
from mediqa_node.storage import constancy_checks

DELIVERS = {"peers": {"PACS": {"ae_title": "P", "host": "h", "port": 1}}, "returns": [{"to": ["PACS"]}]}
MISMATCH = "operator torchvision::nms does not exist"


def findings(folder: Path) -> dict[str, list[Finding]]:
    """What `doctor` finds, by name, without the size of the environment, which takes a second to add up."""
    found: dict[str, list[Finding]] = {}
    with patch.object(doctor, "size", lambda: iter(())):
        for finding in doctor.examine(folder / "node.yaml"):
            found.setdefault(finding.name, []).append(finding)
    return found


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node that was prepared and never ran."""
    (tmp_path / "node.yaml").write_text(yaml.safe_dump({"retention": {"low_water_bytes": 0}, **DELIVERS}))
    resources.prepare(config.load(tmp_path / "node.yaml", {}))
    return tmp_path


@pytest.mark.parametrize(
    ("missing", "mark", "says"), [([], "ok", "packages installed"), (["fastapi"], "note", "not installed: fastapi")]
)
def test_the_workbench_is_there_or_what_it_lacks_is_named(node: Path, missing: list[str], mark: str, says: str) -> None:
    with patch.object(service, "missing_web_packages", lambda: missing):
        (found,) = findings(node)["workbench"]

    assert found.mark == mark
    assert says in found.text


def test_a_sound_installation_is_well_and_every_line_has_a_mark(node: Path) -> None:
    result = invoke_in(node, "doctor")

    assert result.returncode == 0, result.stdout
    first, *lines = result.stdout.splitlines()
    assert first == "no problem found"
    assert {line.split()[0] for line in lines} <= {"ok", "note"}
    named = {line.split()[1] for line in lines}
    assert named == {
        "mediqa-node", "packages", "size", "torchvision", "processor", "accelerator", "decoders", "settings", "reports",
        "model", "data", "database", "workbench", "constancy", "roles", "queues",
    } | ({"quota"} if "quota" in named else set())  # fmt: skip
    assert "digests of weights and card verified" in result.stdout
    assert "JPEG 2000" in result.stdout
    found = json.loads(invoke_in(node, "doctor", "--json").stdout)
    assert [(entry["name"], entry["mark"]) for entry in found] == [(line.split()[1], line.split()[0]) for line in lines]


@pytest.mark.acceptance
def test_a_torchvision_that_does_not_fit_is_named_with_the_way_out(node: Path, tmp_path: Path) -> None:
    shadow = tmp_path / "shadow" / "torchvision"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text(f"raise RuntimeError({MISMATCH!r})")

    command = [sys.executable, "-m", "mediqa_node", "-c", str(node / "node.yaml"), "doctor"]
    environment = {**os.environ, "PYTHONPATH": str(shadow.parent)}

    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=node, env=environment)

    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    lines = result.stdout.splitlines()
    [at] = [i for i, line in enumerate(lines) if line.split()[:2] == ["PROBLEM", "torchvision"]]
    assert MISMATCH in lines[at]
    assert "from one index" in lines[at + 1]
    assert any(line.split()[:2] == ["PROBLEM", "model"] for line in lines), "timm imports it: no network either"


@pytest.mark.parametrize(
    ("settings", "fix"),
    [
        ({}, "`returns` is empty"),
        (DELIVERS | {"returns": [{"to": ["PACS"], "when": "never"}]}, "every rule in `returns` ends without a report"),
        ({"returns": [{"to": ["sender"]}]}, "no peer is configured"),
        (DELIVERS | {"receiver": {"allowed": []}}, "lets no sender store images"),
    ],
)
def test_a_node_that_can_send_no_report_has_a_problem(tmp_path: Path, settings: dict[str, object], fix: str) -> None:
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))

    [reports] = findings(tmp_path)["reports"]
    checked = invoke_in(tmp_path, "config", "check")

    assert (reports.mark, fix in str(reports.fix)) == ("problem", True), reports
    assert (checked.returncode, "WARNING" in checked.stdout, fix in checked.stdout) == (0, True, True)
    assert "good" not in checked.stdout


def test_a_wrong_configuration_is_a_problem_and_the_rest_is_told_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text("node: {port: abc}")

    found = findings(tmp_path)

    [settings] = found["settings"]
    assert settings.mark == "problem"
    assert "node.port" in settings.text
    assert found["torchvision"][0].mark == "ok"


@pytest.mark.parametrize(
    ("settings", "name", "said"),
    [
        ({"model": {"checkpoint": "chest"}}, "settings", "'chest' is not pinned"),
        ({"retention": {"low_water_bytes": 10**18}}, "data", "retention.low_water_bytes"),
        ({"node": {"data_dir": "/proc/mediqa"}}, "data", "cannot be written to"),
        ({"database": {"url": "postgresql+psycopg://nobody@127.0.0.1:1/none"}}, "database", "did not answer"),
    ],
)
def test_what_stands_in_the_way_of_a_node_is_a_problem(
    tmp_path: Path, settings: dict[str, object], name: str, said: str
) -> None:
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))

    problems = [finding for finding in findings(tmp_path)[name] if finding.mark == "problem"]

    assert any(said in finding.text for finding in problems), problems


def test_changed_weights_are_a_problem(tmp_path: Path) -> None:
    (tmp_path / "models.lock").write_text(
        yaml.safe_dump({"default": {"directory": "gone", "sha256": "0" * 64, "card_sha256": "0" * 64}})
    )
    (tmp_path / "node.yaml").write_text(yaml.safe_dump({"model": {"lock": "models.lock"}}))

    [model] = findings(tmp_path)["model"]

    assert model.mark == "problem"
    assert "card.json cannot be read" in model.text


def test_a_failed_constancy_check_and_an_old_database_are_problems(node: Path) -> None:
    database = resources.open_database(config.load(node / "node.yaml", {}))
    identity = Identity(software_version="0.1.0", weights_sha256="ab", execution="cpu fp32", libraries="torch 1")
    failed = compare(identity, {"a": 1.0}, pinned=None, first={"a": 2.0}, accepted=None, at=0.0)
    with database.write() as connection:
        constancy_checks.save_check(connection, failed)
    [constancy] = findings(node)["constancy"]
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    database.close()

    [stale] = findings(node)["database"]

    assert constancy.mark == "problem"
    assert "raw score of a is 1.000000, the first check at this site says 2.000000" in constancy.text
    assert "--acknowledge" in str(constancy.fix)
    assert (stale.mark, "was written by another version" in stale.text) == ("problem", True)
