"""The commands in the documents: each is marked, and those that are marked to run do run."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for path in [
        *REPO.glob("*.md"),
        *(REPO / "mediqa_node").glob("*.md"),
        *(REPO / "mediqa_node" / "docs").glob("*.md"),
        *(REPO / "training").glob("*.md"),
        *(REPO / "training" / "docs").glob("*.md"),
    ]
)
NOT_COMMANDS = {"text", "csv", "yaml", "ini", "json", "python"}
MARK = re.compile(r"<!-- (run|acceptance|not run here: \S.*) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it starts, its language, its mark (None without one) and its lines."""

    place: str
    language: str
    mark: str | None
    text: str


def blocks(path: Path) -> list[Block]:
    found = []
    lines = path.read_text(encoding="utf-8").splitlines()
    start = None
    for i, line in enumerate(lines):
        if not line.lstrip().startswith("```"):
            continue
        if start is None:
            start = i
            continue
        before = next((text for text in reversed(lines[:start]) if text.strip()), "")
        mark = MARK.fullmatch(before.strip())
        found.append(
            Block(
                place=f"{path.relative_to(REPO)}:{start + 1}",
                language=lines[start].strip().removeprefix("```").strip(),
                mark=mark[1].partition(":")[0] if mark else None,
                text="\n".join(lines[start + 1 : i]) + "\n",
            )
        )
        start = None
    assert start is None, f"{path}: the block in line {(start or 0) + 1} does not end"
    return found


ALL = [block for path in DOCUMENTS for block in blocks(path)]


def test_every_block_of_commands_is_marked() -> None:
    unmarked = [block.place for block in ALL if block.language not in NOT_COMMANDS and block.mark is None]

    assert unmarked == [], "write <!-- run -->, <!-- acceptance --> or <!-- not run here: reason --> before them"


def test_the_readme_is_short_and_has_something_to_run() -> None:
    assert len((REPO / "README.md").read_text(encoding="utf-8").splitlines()) <= 130
    assert [block for block in ALL if block.place.startswith("README.md") and block.mark == "run"]


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            if target and "://" not in target and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(REPO)}: {target}")

    assert broken == []


def run(block: Block, folder: Path, timeout_s: float) -> None:
    script = folder.parent / f"{folder.name}.sh"
    script.write_text(block.text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDIQA")}
    environment |= {"REPO": str(REPO), "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"}
    finished = subprocess.run(
        ["bash", "-e", "-o", "pipefail", str(script)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )

    assert finished.returncode == 0, f"{block.place}\n{block.text}\n{finished.stdout}\n{finished.stderr}"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("block", [b for b in ALL if b.mark == "run"], ids=lambda block: block.place)
def test_a_block_runs(block: Block, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run(block, tmp_path / "empty", timeout_s=850)


@pytest.mark.acceptance
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("block", [b for b in ALL if b.mark == "acceptance"], ids=lambda block: block.place)
def test_a_block_runs_before_a_release(block: Block, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run(block, tmp_path / "empty", timeout_s=7100)
