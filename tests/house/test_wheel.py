"""A wheel installed into an environment of its own runs the demonstration and a training, from an empty folder."""

import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.series import ct_series

ROOT = Path(__file__).parents[2]
COPIED = ("config", "mediqa_node", "training", "setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the sources: a build leaves its folders behind."""
    source = tmp_path_factory.mktemp("source")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "seeds", "var"))
        else:
            shutil.copy(ROOT / name, source / name)
    target = tmp_path_factory.mktemp("wheel")
    python(source, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", target, source)
    [built] = target.glob("*.whl")
    return built


def python(folder: Path, *arguments: object, executable: Path = Path(sys.executable)) -> str:
    """Run Python without the checkout on its path; return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MEDIQA_CONFIG")}
    command = [str(executable), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.acceptance
def test_a_wheel_holds_the_configuration_and_the_weights_and_no_second_copy(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())

    presets = {path.name for path in (ROOT / "config").glob("*.yaml")}
    assert {f"mediqa_config/{name}" for name in presets} <= names
    assert "mediqa_node/defaults/default/weights.safetensors" in names
    assert not [name for name in names if name.startswith(("config/", "tests/"))]
    assert [name for name in names if Path(name).name == "prompts.yaml"] == ["mediqa_config/prompts.yaml"]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel, and borrows what it depends on."""
    folder = tmp_path_factory.mktemp("installed")
    python(folder, "-m", "venv", "--without-pip", folder / "venv")
    [library] = (folder / "venv" / "lib").glob("python*/site-packages")
    packages = [*site.getsitepackages(), *(path for path in sys.path if path.endswith("site-packages"))]
    (library / "dependencies.pth").write_text("\n".join(dict.fromkeys(packages)) + "\n")
    own = folder / "venv" / "bin" / "python"
    python(folder, "-m", "pip", "install", "--no-deps", wheel, executable=own)
    code = "import mediqa_config, mediqa_node, training; print(*[m.__file__ for m in (mediqa_config, mediqa_node)])"
    assert all(str(library) in path for path in python(folder, "-c", code, executable=own).split())
    return own


@pytest.mark.acceptance
@pytest.mark.timeout(1800)
def test_a_wheel_runs_the_demonstration_from_an_empty_folder(installed, tmp_path):
    kept = tmp_path / "demo"

    shown = python(tmp_path, installed.parent / "mediqa-node", "demo", "--keep", kept, executable=installed)

    assert "8 images of a chest CT" in shown
    assert "C-STORE" in shown
    assert "UNTRAINED" not in shown
    [report] = (kept / "pacs").glob("2*/*.dcm")
    assert str(report) in shown


@pytest.mark.acceptance
@pytest.mark.timeout(1800)
def test_a_wheel_trains_from_an_empty_folder(installed, tmp_path):
    for name in ("a", "b"):
        ct_series(tmp_path / "images" / name, name)

    def train(*arguments: object) -> str:
        return python(tmp_path, installed.parent / "mediqa-train", *arguments, executable=installed)

    train("simulate", "--collection", "images", "--preset", "small", "--out", "store")
    assert "1 steps on" in train("pretrain", "store", "--out", "stage1", "--steps", 1)
