"""Read the training ranges of a card strictly: limits apply only to the statistics they were fitted on."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from mediqa_node.domain.preprocessing import PreprocessSpec
from mediqa_node.domain.prompt import MODALITIES
from mediqa_node.image.measure.slice_statistics import LOCAL, VERSION, window_names
from mediqa_node.image.training_range import FEWEST_SOURCES, Ellipsoid, TrainingRange


def read_training_ranges(raw: object, spec: PreprocessSpec) -> dict[str, TrainingRange]:
    """Read the training ranges by modality from a card or the output of `mediqa-train domain`.

    Args:
        raw: parsed JSON.
        spec: the card's preprocessing.

    Raises:
        ValueError: a field is missing, unknown or out of range, or the statistics or preprocessing differ from those of
            this version and card.
    """
    require(isinstance(raw, dict), "domains must be an object by modality")
    assert isinstance(raw, dict)
    return {modality: _domain(modality, content, spec) for modality, content in raw.items()}


def _domain(modality: str, raw: Any, spec: PreprocessSpec) -> TrainingRange:
    where = f"domain of {modality}"
    require(modality in MODALITIES, f"{where}: unknown modality; known: {', '.join(MODALITIES)}")
    _has_fields(where, raw, TrainingRange)
    require(
        type(raw["version"]) is int and raw["version"] == VERSION,
        f"{where}: statistics of version {raw['version']!r}; this version measures {VERSION}",
    )
    require(raw["fingerprint"] == spec.fingerprint(), f"{where}: found with another preprocessing than the card's")
    require(type(raw["sources"]) is int and raw["sources"] >= FEWEST_SOURCES, f"{where}: sources {raw['sources']!r}")
    require(
        is_number(raw["inside_at_least"]) and 0 <= raw["inside_at_least"] <= 1,
        f"{where}: inside_at_least {raw['inside_at_least']!r}, must lie in 0..1",
    )
    require(type(raw["round_field"]) is bool, f"{where}: round_field must be true or false")
    tests = {
        "window": _ellipsoid(f"{where}, window", raw["window"], window_names(modality)),
        "local": _ellipsoid(f"{where}, local", raw["local"], LOCAL),
    }
    return TrainingRange(**raw | tests)


def _ellipsoid(where: str, raw: Any, names: tuple[str, ...]) -> Ellipsoid:
    _has_fields(where, raw, Ellipsoid)
    require(raw["names"] == list(names), f"{where}: statistics {raw['names']!r}; this version measures {list(names)}")
    k = len(names)
    mean, precision = raw["mean"], raw["precision"]
    require(_is_vector(mean, k), f"{where}: mean must be {k} finite numbers")
    rows = isinstance(precision, list) and len(precision) == k and all(_is_vector(row, k) for row in precision)
    require(rows, f"{where}: precision must be {k} rows of {k} finite numbers")
    matrix = np.array(precision, dtype=np.float64)
    require(bool((matrix == matrix.T).all()), f"{where}: precision is not symmetric")
    require(bool((np.linalg.eigvalsh(matrix) > 0).all()), f"{where}: precision is not positive definite")
    require(is_number(raw["limit"]) and raw["limit"] > 0, f"{where}: limit {raw['limit']!r}, must exceed 0")
    return Ellipsoid(
        names=names, mean=tuple(mean), precision=tuple(tuple(row) for row in precision), limit=raw["limit"]
    )


def _has_fields(where: str, raw: Any, kind: type[TrainingRange] | type[Ellipsoid]) -> None:
    expected = {field.name for field in fields(kind)}
    found: set[str] = set(raw) if isinstance(raw, Mapping) else set()
    require(found == expected, f"{where}: fields {sorted(found)}, expected {sorted(expected)}")


def _is_vector(value: object, length: int) -> bool:
    return isinstance(value, list) and len(value) == length and all(is_number(one) for one in value)


def is_number(value: object) -> bool:
    """Whether a JSON value is a finite number."""
    return isinstance(value, (int, float)) and type(value) is not bool and math.isfinite(value)


def require(holds: bool, message: str) -> None:
    """Raise ValueError with a message unless the condition holds."""
    if not holds:
        raise ValueError(message)
