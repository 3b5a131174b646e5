"""What may be claimed of a checkpoint, from what was measured of it: no more stands in its card and in reports."""

from collections.abc import Mapping, Sequence
from typing import Any

from training.gates import DETECTED
from training.judged import QUALITY, SHIPPED


def claims_of(gates: Mapping[str, Any], *, sources: Sequence[str]) -> dict[str, str]:
    """Return a claim for each modality that was judged, in ASCII.

    Args:
        gates: content of `gates.json`: tasks and sweeps on held-out sources.
        sources: what was trained on.
    """
    claims = {}
    for modality in ("CT", "MR", "OP"):
        swept = [one for one in gates.get("sweeps", []) if (one["modality"], one["method"]) == (modality, SHIPPED)]
        tasks = [
            one
            for one in gates.get("tasks", [])
            if (list(one["task"]), one["method"]) == ([modality, QUALITY], SHIPPED)
        ]
        if not swept or not tasks:
            continue
        follows = [one["factor"] for one in swept if one["mean"] >= DETECTED]
        missed = [one["factor"] for one in swept if one["mean"] < DETECTED]
        held = tasks[0]["agreement"]
        trained = sum(one.startswith({"CT": "ct", "MR": "mr", "OP": "fundus"}[modality]) for one in sources)
        claims[modality] = (
            f"Relative index of the severity of {_listed(follows) or 'NOTHING that was tried'}, trained on simulated "
            f"degradations of images of {trained} sources; no expert scored any. Held-out sources: SRCC "
            f"{held['srcc']['value']:.2f} over {held['n']} images of {held['groups']} slices. "
            + (f"NOT DETECTED: {_listed(missed)}. " if missed else "")
            + "Not comparable across modalities; no threshold before calibration at this site."
        )
    return claims


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words)
