"""The map from a physical label to 0..1, fitted on the training split alone and frozen in `normalizer.json`.

CT: the variance of noise goes as 1 / (tube charge x slice thickness), so that equal ratios of mAs are equal steps of
noise: y = (ln m - ln lo) / (ln hi - ln lo), clipped, between the 1st and the 99th percentile of its stratum (modality,
region, type); a stratum with too few series uses its modality, and a modality with too few uses fixed bounds. MR:
the signal-to-noise ratio is roughly proportional to B0, which has few nominal levels: the same map between fixed
bounds, plus the levels.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from mediqa_node.domain.export import Row

FEWEST = 10
"""Series of the training split that a fitted map rests on at least."""
BOUNDS = {"mas": (10.0, 400.0), "tesla": (0.3, 7.0)}
"""Of maps that are not fitted: chest CT from very low to high dose, mA.s; magnets in clinical use, T."""


def fit_normalizers(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return the maps that these rows use, by id.

    Args:
        rows: with label_name, label_value, modality, region, type, patient_key, stage1_eligible and split.
    """
    labelled = [row for row in rows if row.get("label_value") is not None and row["label_name"] in BOUNDS]
    fitted = [row for row in labelled if row["split"] == "train" and row["stage1_eligible"]]
    maps = {
        name: _fit(label, [row for row in fitted if name in _candidates(row)])
        for label, name in sorted({(row["label_name"], name) for row in labelled for name in _candidates(row)})
    }
    used = {_chosen(row, maps) for row in labelled}
    return {name: maps[name] for name in sorted(used)}


def normalized(row: Row, maps: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return `label_norm` and `normalizer_id` of a row; nulls without a label."""
    if row.get("label_value") is None:
        return {"label_norm": None, "normalizer_id": None}
    name = _chosen(row, maps)
    low, high = maps[name]["lo"], maps[name]["hi"]
    share = (math.log(row["label_value"]) - math.log(low)) / (math.log(high) - math.log(low))
    return {"label_norm": min(max(share, 0.0), 1.0), "normalizer_id": name}


def _candidates(row: Row) -> tuple[str, ...]:
    """Return the ids of the maps that a row may use, the narrowest first."""
    label, modality = row["label_name"], row["modality"]
    if label == "tesla":
        return (f"tesla:{modality}",)
    return (f"mas:{modality}/{row['region']}/{row['type']}", f"mas:{modality}")


def _chosen(row: Row, maps: dict[str, dict[str, Any]]) -> str:
    names = _candidates(row)
    return next((name for name in names if name in maps and maps[name]["source"] == "train"), names[-1])


def _fit(label: str, train: Sequence[Row]) -> dict[str, Any]:
    values = [row["label_value"] for row in train]
    low, high = BOUNDS[label]
    found: dict[str, Any] = {
        "label": label, "kind": "log", "n": len(values), "n_patients": len({row["patient_key"] for row in train}),
    }  # fmt: skip
    if label == "tesla":
        levels = {f"{tesla:g}": n for tesla, n in sorted(Counter(values).items())}
        return found | {"lo": low, "hi": high, "source": "fixed", "levels": levels}
    p1, p99 = (float(np.percentile(values, p)) for p in (1, 99)) if values else (low, low)
    if len(values) >= FEWEST and p99 > p1:
        return found | {"lo": p1, "hi": p99, "source": "train"}
    return found | {"lo": low, "hi": high, "source": "fixed"}
