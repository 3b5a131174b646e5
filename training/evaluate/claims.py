"""The claims that the gates of a checkpoint allow; cards and reports claim no more."""

from collections.abc import Mapping, Sequence
from typing import Any

from mediqa_node.model.card import PredictedParameter
from training.evaluate.by_method import QUALITY, SHIPPED
from training.evaluate.single_factors import DETECTED, is_followed
from training.simulate.mr_from_ct import PREFIX

FEW_IMAGES = 5
"""Of a factor; a claim that rests on fewer says so."""


def claims_of(gates: Mapping[str, Any], made_by: Mapping[str, Any], *, refit: bool = False) -> dict[str, str]:
    """Return a claim in ASCII for each evaluated modality.

    Args:
        gates: content of `gates.json`: tasks and sweeps on held-out sources, of this checkpoint alone.
        made_by: provenance of the checkpoint: `samples`, `simulated` and `sources` by modality.
        refit: whether the gates are of the fit before, which these sources were held out of.
    """
    expert = made_by["samples"] - made_by["simulated"]
    scored = "no expert scored any" if not expert else f"{expert} of {made_by['samples']} samples are of expert scores"
    images = "simulated degradations of images" if made_by["simulated"] else "images"
    claims = {}
    for modality in ("CT", "MR", "OP"):
        of_regions = [
            one
            for one in gates.get("sweeps", [])
            if (one["modality"], one["method"], one.get("held_out", "")) == (modality, SHIPPED, "")
        ]
        tasks = [
            one
            for one in gates.get("tasks", [])
            if (list(one["task"]), one["method"]) == ([modality, QUALITY], SHIPPED)
        ]
        if not of_regions or not tasks:
            continue
        follows, less, missed = _by_verdict(of_regions)
        held = tasks[0]["agreement"]
        srcc = held["srcc"]["value"]
        claims[modality] = (
            f"Relative index of the severity of {_listed(follows) or 'NOTHING that was tried'}, trained on {images} of "
            f"{_sources(made_by, modality)}{_pretrained(made_by)}; {scored}. "
            f"Held-out sources: SRCC "
            f"{'undefined' if srcc is None else f'{srcc:.2f}'} over {_counted(held['n'], 'image')} of "
            f"{_counted(held['groups'], 'slice')}. "
            + (f"BELOW THE GATE: {_listed(less)}. " if less else "")
            + (f"NOT DETECTED: {_listed(missed)}. " if missed else "")
            + _by_region(of_regions)
            + ("These figures are of the fit before, without the held-out sources. " if refit else "")
            + "Not comparable across modalities; no threshold before calibration at this site."
        )
    return claims


def _sources(made_by: Mapping[str, Any], modality: str) -> str:
    """Return `3 sources`, and what was made from CT apart: anatomy of a CT is no source of MR."""
    names = made_by["sources"].get(modality, ())
    from_ct = sum(name.startswith(PREFIX) for name in names)
    made = f" and MR-like images of {_counted(from_ct, 'CT source')}" if from_ct else ""
    return _counted(len(names) - from_ct, "source") + made


def _pretrained(made_by: Mapping[str, Any]) -> str:
    """Return ` from features pretrained on ImageNet`; "" if the encoder began from none."""
    given = made_by.get("pretrained")
    if given is None:
        return ""
    return f" from features pretrained on {given['trained_on'] or given['weights']}"


def held_out_rmse(gates: Mapping[str, Any], parameter: PredictedParameter) -> float | None:
    """Return the error of a predicted parameter on held-out sources, of its logarithm if that is learned, or None."""
    for one in gates.get("tasks", []):
        if (list(one["task"]), one["method"]) == ([parameter.modality, parameter.name], SHIPPED):
            rmse = one["agreement"]["rmse"]["value"]
            return None if rmse is None else float(rmse * parameter.sd)
    return None


def _by_verdict(swept: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str], list[str]]:
    """Return the factors that a score follows, those below their gate, and those that it does not detect.

    A factor is followed if it is in every region with an entry of its own. One that few images could show says so.
    """
    follows, less, missed = [], [], []
    for factor in dict.fromkeys(one["factor"] for one in swept):
        mine = [one for one in swept if one["factor"] == factor]
        judged = [one for one in mine if one["region"]] or mine
        images = sum(one["images"] for one in judged)
        named = factor if images >= FEW_IMAGES else f"{factor} (tested on {_counted(images, 'image')})"
        if all(_is_followed(one) for one in judged):
            follows.append(named)
        elif min(one["mean"] for one in judged) >= DETECTED:
            less.append(named)
        else:
            missed.append(named)
    return follows, less, missed


def _is_followed(one: Mapping[str, Any]) -> bool:
    return is_followed(one["modality"], one["region"], one["factor"], one["mean"])


def _by_region(swept: Sequence[Mapping[str, Any]]) -> str:
    """Return the factors that the score follows in each region; "" if there is only one region."""
    regions = sorted({one["region"] for one in swept} - {""})
    followed = {
        region: [one["factor"] for one in swept if one["region"] == region and _is_followed(one)] for region in regions
    }
    parts = [f"{region.replace('_', ' ')}: {_listed(mine) or 'nothing'}" for region, mine in followed.items()]
    return f"By region it follows, of {'; of '.join(parts)}. " if parts else ""


def _counted(n: int, one: str) -> str:
    return f"{n} {one}{'s' * (n != 1)}"


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words)
