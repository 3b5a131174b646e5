"""What must not change by accident: the node's answers to real images, the words of the command line, the manifest.

A change that is meant is listed in the CHANGELOG, and its golden is written again:

    cd tests && python -m support.golden VALUES.json --digests golden/clone.json
    cd tests && python -m support.golden VALUES.json --collection DIR --digests golden/collection.json
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer
from support.command import invoke_in
from support.golden import digests, goldens

from mediqa_node.exchange import columns

GOLDEN = Path(__file__).parents[1] / "golden"
SCORES = ("scores", "quality", "report", "measures")
"""What the processor has a part in: float32 sums differ in the last bits between kinds of processors. Measures of one
version of their method must not change either."""


def _kept(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def _without_scores(found: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    return {uid: {key: value for key, value in of.items() if key not in SCORES} for uid, of in found.items()}


def test_the_images_of_the_clone_are_understood_as_before() -> None:
    assert _without_scores(digests(goldens(None, scored=False))) == _without_scores(_kept("clone"))


@pytest.mark.acceptance
@pytest.mark.timeout(3600)
def test_a_collection_is_understood_scored_and_reported_as_before(request: pytest.FixtureRequest) -> None:
    named = request.config.getoption("--collection", None) or os.environ.get("MEDIQA_COLLECTION")
    if not named:
        pytest.skip("needs --collection DIR")

    assert digests(goldens(Path(named))) == _kept("collection")


def _commands(application: typer.Typer) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}

    def walk(command: Any, name: str) -> None:
        for child, below in getattr(command, "commands", {}).items():
            walk(below, f"{name} {child}".strip())
        if not hasattr(command, "commands"):
            found[name] = sorted(option for param in command.params for option in param.opts if option != "--help")

    walk(typer.main.get_command(application), "")
    return found


def test_no_command_and_no_option_is_lost() -> None:
    import training.cli
    from mediqa_node import cli

    cli.register()
    now = {"mediqa-node": _commands(cli.app), "mediqa-train": _commands(training.cli.app)}

    missing = {
        f"{program} {command} {option}"
        for program, commands in _kept("commands").items()
        for command, options in commands.items()
        for option in (options or [""])
        if command not in now[program] or (option and option not in now[program][command])
    }
    assert missing == set()


def test_the_columns_of_the_manifest_stay() -> None:
    assert [column.name for column in columns.MANIFEST] == _kept("columns")


NOWHERE = "/nonexistent"
EXITS = {
    ("--version",): 0,
    ("no-such-command",): 2,
    ("score",): 2,
    ("score", NOWHERE): 2,
    ("status",): 2,
    ("show", "1.2.3"): 2,
    ("config", "check"): 0,
    ("config", "show"): 0,
    ("model", "list"): 0,
    ("model", "promote", NOWHERE): 2,
    ("conformance",): 0,
    ("echo", "NOBODY"): 2,
}
"""Exit status in a new data folder: 0 good, 1 not good, 2 misused."""


def test_exit_codes_stay(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text(f"node: {{data_dir: {tmp_path / 'var'}}}\n", encoding="utf-8")

    assert {words: invoke_in(tmp_path, *words).returncode for words in EXITS} == EXITS
