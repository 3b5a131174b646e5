"""The examples in docstrings are what the code does."""

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest

import mediqa_node
import training


def modules(package: ModuleType) -> list[str]:
    """Return the names of all modules of a package that can be imported without running anything."""
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return [one.name for one in found if ".migrations" not in one.name and not one.name.endswith("__main__")]


def test_there_are_examples_and_all_of_them_hold() -> None:
    names = (*modules(mediqa_node), *modules(training))
    results = {name: doctest.testmod(importlib.import_module(name)) for name in names}

    assert {name: found.failed for name, found in results.items() if found.failed} == {}
    assert sum(found.attempted for found in results.values()) > 20


@pytest.mark.parametrize("package", [mediqa_node, training])
def test_every_package_ships_its_types(package: ModuleType) -> None:
    from importlib.resources import files

    assert (files(package) / "py.typed").is_file()
