"""What each part of the recipe is worth: the head on the frozen trunk, trained without it, one seed.

Arms differ from the whole in one part. All are trained alike and compared on the same held-out samples. Slice weights
need no arm: volumes of held-out slices are scored with the weights that the whole has learnt, and with equal ones.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.prompt import MODALITIES
from mediqa_node.model.network import MedIQA
from mediqa_node.model.prompts import FOUR_ONE_HOTS
from training.data.batches import quality_of_volume
from training.data.store import Sample
from training.data.views import Prepared
from training.evaluate.metrics import agreement
from training.evaluate.predictions import predict
from training.evaluate.results import Result
from training.fit.recipe import STAGE1, STAGE2, read_recipe
from training.fit.runs import finetune, predictions_of, pretrain
from training.simulate.mr_from_ct import PREFIX

WHOLE = "with all parts"
WEIGHTED, EQUAL = "volumes, learnt slice weights", "volumes, equal slice weights"
HEADS = ("arm", "modality", "images", "SRCC", "within an image")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to train."""

    name: str
    stage1: bool = True
    prompts: bool = True
    mr_from_ct: bool = True


ARMS = (
    Arm(name=WHOLE),
    Arm(name="without stage 1", stage1=False),
    Arm(name="without prompts", prompts=False),
    Arm(name="without MR from CT", mr_from_ct=False),
)


def controls(
    data: Prepared,
    folder: Path,
    *,
    seed: int,
    steps: int | None,
    advance: Callable[[int, int, str], None],
) -> Iterator[Result]:
    """Yield the quality reached on held-out samples, by arm and modality; existing runs are reused.

    Args:
        steps: of both stages of every arm; None: the presets'.

    Raises:
        ConfigurationError: no sample is held out.
    """
    held = data.subset(lambda sample: sample.split == "test" and "quality" in sample.labels)
    if not len(held):
        raise ConfigurationError("no held-out sample has a quality to compare with; simulate again with `--hold-out`")
    made_from_ct = any(one.source.startswith(PREFIX) for one in data.samples if one.split == "train")
    for arm in (arm for arm in ARMS if arm.mr_from_ct or made_from_ct):
        run = folder / arm.name.replace(" ", "-")
        network = _trained(arm, data, run, seed, steps, advance)
        score = predictions_of(run, network, held, prompted=arm.prompts)["score"]
        yield from _results(arm.name, held.samples, score, seed)
        if arm.name == WHOLE:
            volumes = Volumes(held)
            plain = [float(np.mean([score[place] for place in one])) for one in volumes.places]
            yield from _results(WEIGHTED, volumes.samples, predict(network, volumes, FOUR_ONE_HOTS).score, seed)
            yield from _results(EQUAL, volumes.samples, np.array(plain), seed)


def _trained(
    arm: Arm, data: Prepared, run: Path, seed: int, steps: int | None, advance: Callable[[int, int, str], None]
) -> MedIQA:
    left_out = [] if arm.mr_from_ct else sorted({one.source for one in data.samples if one.source.startswith(PREFIX)})
    begin = None
    given: dict[str, Any] = {"seed": seed, "steps": steps, "leave_out": left_out}
    if arm.stage1:
        begin = run.with_name(f"{run.name}-stage1")
        first = read_recipe(STAGE1, "default").model_copy(update={"prompts": arm.prompts})
        pretrain(data, first, begin, advance=_named(advance, f"{arm.name}, stage 1"), **given)
    second = read_recipe(STAGE2, "default").model_copy(update={"prompts": arm.prompts})
    return finetune(data, second, run, begin=begin, advance=_named(advance, arm.name), **given)


def _named(advance: Callable[[int, int, str], None], name: str) -> Callable[[int, int, str], None]:
    return lambda done, total, _: advance(done, total, name)


class Volumes(Prepared):
    """Held-out slices of one stack put together, one copy of each: the k-th volume has the k-th copy of every slice.

    Attributes:
        places: indices of the slices of each volume.
    """

    def __init__(self, data: Prepared) -> None:
        self._data = data
        stacks: dict[str, dict[str, list[int]]] = {}
        for place, sample in enumerate(data.samples):
            if sample.prompt["dimension"] == "3D":
                stacks.setdefault(sample.stack, {}).setdefault(sample.base, []).append(place)
        self.places = [
            places for slices in stacks.values() if len(slices) > 1 for places in zip(*slices.values(), strict=False)
        ]
        self.samples = [_volume([data.samples[place] for place in places]) for places in self.places]

    def slice_of(self, index: int) -> np.ndarray:
        """Return the slice that each view of a volume shows, (m,)."""
        counts = [len(self._data.slice_of(place)) for place in self.places[index]]
        return np.repeat(np.arange(len(counts)), counts)

    def views(self, index: int, which: Sequence[int] | None = None) -> np.ndarray:
        """Return all or some views of a volume."""
        every = np.concatenate([self._data.views(place) for place in self.places[index]])
        return every if which is None else every[list(which)]


def _volume(slices: Sequence[Sample]) -> Sample:
    """Return a volume's sample."""
    quality = quality_of_volume(slices, np.array([one.labels["quality"] for one in slices]))
    return replace(slices[0], base=slices[0].stack, labels={"quality": quality})


def _results(arm: str, samples: Sequence[Sample], score: np.ndarray, seed: int) -> Iterator[Result]:
    for modality in MODALITIES:
        mine = [place for place, one in enumerate(samples) if one.modality == modality]
        if mine:
            chosen = [samples[place] for place in mine]
            truth = [one.labels["quality"] for one in chosen]
            bases, sources = [one.base for one in chosen], [one.source for one in chosen]
            yield Result(
                task=(modality,),
                method=arm,
                seed=seed,
                agreement=agreement(score[mine], truth, bases, sources=sources),
            )


def rows(found: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    """Yield a row under HEADS for every arm and modality."""
    for one in found:
        within = one.agreement.within.value
        shown = "–" if within is None else f"{within:.3f}"
        yield one.method, one.task[0], str(one.agreement.n), str(one.agreement.srcc), shown
