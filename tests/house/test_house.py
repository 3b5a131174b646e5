"""The house rules: floors, file and function sizes, documents that follow the code."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mediqa_node.conformance import statement

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for room in ("mediqa_node", "training")
    for path in (ROOT / room).rglob("*.py")
    if path.parent.name != "versions"  # a migration is a record of tables, written once and never read for pleasure
)


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_imports_only_go_down() -> None:
    result = lint_imports(ROOT)

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("domain/errors.py", "from mediqa_node.dicom import scan"),
        ("storage/spool.py", "import mediqa_node.network.dimse"),
        ("pipeline/completion_sweep.py", "import torch"),
        ("pipeline/assess.py", "import pynetdicom"),
        ("helpers.py", "x = 1"),
    ],
)
def test_a_planted_violation_is_seen(tmp_path: Path, file: str, line: str) -> None:
    for room in ("mediqa_node", "training"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__", "*.dcm"))
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    planted = tmp_path / "mediqa_node" / file
    planted.write_text((planted.read_text() if planted.exists() else '"""."""\n') + f"\n{line}\n")

    result = lint_imports(tmp_path)

    assert result.returncode != 0, f"{line} in {file} passed"


def test_no_file_is_longer_than_400_lines() -> None:
    long = {str(p.relative_to(ROOT)): n for p in SOURCES if (n := p.read_text().count("\n")) > 400}

    assert long == {}


def test_no_function_is_longer_than_60_lines() -> None:
    long = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                doc = len((ast.get_docstring(node) or "").splitlines())
                if (length := node.end_lineno - node.lineno + 1 - doc) > 60:
                    long[f"{path.relative_to(ROOT)}:{node.name}"] = length

    assert long == {}


def test_the_conformance_statement_is_what_the_code_prints() -> None:
    assert (ROOT / "mediqa_node" / "CONFORMANCE.md").read_text(encoding="utf-8") == statement()


def test_the_house_names_every_room() -> None:
    drawn = (ROOT / "mediqa_node" / "README.md").read_text(encoding="utf-8")
    rooms = {p.name for p in (ROOT / "mediqa_node").iterdir() if (p / "__init__.py").exists()}

    assert {room for room in rooms if room not in drawn} == set()


def test_the_house_names_files_that_exist() -> None:
    drawn = (ROOT / "mediqa_node" / "README.md").read_text(encoding="utf-8")
    named = {
        word for word in drawn.replace("`", " ").replace(",", " ").split() if word.endswith((".py", ".yaml", ".lock"))
    }

    missing = {name for name in named if "/" in name and "[" not in name and not (ROOT / "mediqa_node" / name).exists()}
    assert missing == set()


def loaded(code: str, *libraries: str) -> set[str]:
    """Run code in a process of its own; return which of these libraries it has imported."""
    code += f"\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}} & {set(libraries)})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


def loaded_by_command(package: str, *arguments: str, libraries: tuple[str, ...]) -> set[str]:
    """Return which of these libraries a command has imported when it ends."""
    code = (
        f"import sys; from {package}.cli import main; sys.argv = {['command', *arguments]}\n"
        "try: main()\nexcept SystemExit: pass"
    )
    return loaded(code, *libraries)


def test_the_receiver_loads_neither_torch_nor_the_model() -> None:
    code = (
        "import mediqa_node.service, mediqa_node.pipeline.flow, mediqa_node.pipeline.recovery, "
        "mediqa_node.decode.syntaxes"
    )

    assert loaded(code, "torch", "timm", "dbos", "highdicom", "cryptography") == set()


def test_the_courier_loads_no_torch() -> None:
    """It may load highdicom and DBOS, which build and queue reports."""
    code = (
        "import mediqa_node.service, mediqa_node.pipeline.flow, mediqa_node.pipeline.sweeps; "
        "import mediqa_node.pipeline.durable, mediqa_node.pipeline.deliver, mediqa_node.pipeline.companions; "
        "import mediqa_node.pipeline.report, mediqa_node.pipeline.export.nightly, mediqa_node.network.sender"
    )

    assert loaded(code, "torch", "torchvision", "timm", "dbos") == {"dbos"}


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_the_command_line_loads_no_heavy_library_before_a_command_asks_for_it(option: str) -> None:
    heavy = ("torch", "timm", "scipy", "highdicom", "numpy", "pydicom", "sqlalchemy", "pydantic", "structlog", "rich")

    found = loaded_by_command("mediqa_node", option, libraries=heavy)

    assert found == set(), "every process of a node, the receiver too, starts by this road"


def test_help_of_training_loads_no_torch() -> None:
    heavy = ("torch", "timm", "pydicom", "highdicom")

    assert loaded_by_command("training", "pretrain", "--help", libraries=heavy) == set()


def test_example_configuration_is_the_default_and_names_every_key() -> None:
    import yaml

    from mediqa_node.config import load

    example, default = load(ROOT / "config" / "node.yaml", {}), load(None, {})
    shown, expected = (yaml.safe_load(settings.as_yaml()) for settings in (example, default))
    assert shown == expected

    written = yaml.safe_load((ROOT / "config" / "node.yaml").read_text(encoding="utf-8"))
    assert {s: set(v) if isinstance(v, dict) else None for s, v in written.items()} == {
        s: set(v) if isinstance(v, dict) else None for s, v in expected.items()
    }
