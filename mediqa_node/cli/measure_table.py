"""Measures of a series as a table for people."""

from collections.abc import Mapping
from typing import Any

from mediqa_node.cli.present import table
from mediqa_node.domain.measures import Validity
from mediqa_node.domain.quantities import QUANTITIES, SHOWN_UNITS, SLICES, decimals

HEADS = ("measure", "value", "±", "spread", "unit", "slices", "note")


def print_measures(measures: Mapping[str, Mapping[str, Any]]) -> None:
    """Print measures, given by name as `domain.measures.by_name` returns them, one a line.

    `±` is the standard uncertainty (k = 1), `spread` the interquartile range over slices.
    """
    table(HEADS, [_cells(name, one) for name, one in measures.items()])


def _cells(name: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    known = QUANTITIES.get(name)
    places = decimals(known, one["uncertainty"])
    numbers = ("–" if one[key] is None else f"{one[key]:.{places}f}" for key in ("value", "uncertainty", "spread"))
    unit = SHOWN_UNITS.get(one["unit"], one["unit"])
    note = "" if one["validity"] == Validity.VALID else f"{one['validity']}: {one['reason']}"
    return name, *numbers, unit, str(one["n"]), note


def in_line(measures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return measures in one line: counts of 0 are left out, what is not measurable stands at the end."""
    shown = [short(name, one) for name, one in measures.items() if one["value"] is not None and not _is_none(one)]
    missing = [QUANTITIES[name].title for name, one in measures.items() if one["value"] is None and name in QUANTITIES]
    return "; ".join([*shown, *([f"not measurable: {', '.join(missing)}"] if missing else [])]) or "none"


def _is_none(one: Mapping[str, Any]) -> bool:
    return bool(one["unit"] == SLICES and one["value"] == 0)


def short(name: str, one: Mapping[str, Any]) -> str:
    """Return a measure that has a value in a few words, such as `noise in soft tissue 21.3 ± 0.4 HU`."""
    known = QUANTITIES.get(name)
    title, places = known.title if known else name, decimals(known, one["uncertainty"])
    error = "" if one["uncertainty"] is None else f" ± {one['uncertainty']:.{places}f}"
    unit = SHOWN_UNITS.get(one["unit"], one["unit"])
    limited = " (limited)" if one["validity"] == Validity.LIMITED else ""
    return f"{title} {one['value']:.{places}f}{error} {unit}".rstrip() + limited
