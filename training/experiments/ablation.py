"""Does stage 1 pay off? Stage 2 on few labels, with and without it, with equal steps."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.prompt import MODALITIES
from training.data.views import Prepared
from training.evaluate.metrics import agreement
from training.evaluate.results import Result, metric, select, value
from training.fit.recipe import Recipe
from training.fit.runs import finetune, predictions_of, read_run

LABELS = (50, 200, 1000)
WITHOUT, STAGE_1 = "without stage 1", "from stage 1"
HEADS = ("labels", "modality", WITHOUT, STAGE_1, "gain", "seeds")


def few(data: Prepared, labels: int, seed: int) -> Prepared:
    """Return all held-out samples and, of each modality, `labels` training samples or all that there are.

    They are images with their copies, drawn by seed; the last image may lack some. Smaller draws are subsets of larger
    ones.
    """
    random = np.random.default_rng(seed)
    chosen: set[str] = set()
    for modality in MODALITIES:
        by_base: dict[str, list[str]] = {}
        for one in data.samples:
            if one.modality == modality and one.split == "train" and "quality" in one.labels:
                by_base.setdefault(one.base, []).append(one.key)
        bases = sorted(by_base)
        drawn = [key for place in random.permutation(len(bases)) for key in by_base[bases[place]]]
        chosen.update(drawn[:labels])
    return data.subset(lambda sample: sample.split != "train" or sample.key in chosen)


def trials(
    data: Prepared,
    recipe: Recipe,
    stage1: Sequence[Path],
    folder: Path,
    *,
    labels: Sequence[int] = LABELS,
    steps: int,
    advance: Callable[[int, int, str], None],
) -> Iterator[Result]:
    """Yield the quality reached on held-out sources for each number of labels, modality, start and seed.

    Existing runs are reused. The task of a result is (number of labels, modality).

    Args:
        stage1: runs to start from, one for each seed.

    Raises:
        ConfigurationError: nothing is held out, or a run of stage 1 has learnt severities.
    """
    if wrong := next((run for run in stage1 if read_run(run).recipe.severities), None):
        raise ConfigurationError(
            f"{wrong} has learnt the severities that quality is made of, so its labels are not few; "
            f"pretrain with `--preset physical`"
        )
    held = data.subset(lambda sample: sample.split == "test" and "quality" in sample.labels)
    if not len(held):
        raise ConfigurationError("no held-out sample has a quality to compare with; simulate again with `--hold-out`")
    recipe = recipe.model_copy(update={"severities": False})
    wanted = [(n, run, start) for n in labels for run in stage1 for start in (WITHOUT, STAGE_1)]
    for done, (n, run, start) in enumerate(wanted):
        seed = read_run(run).seed
        name = f"{n}-{seed}-{'stage1' if start == STAGE_1 else 'without'}"
        advance(done, len(wanted), name)
        begin = run if start == STAGE_1 else None
        network = finetune(
            few(data, n, seed), recipe, folder / name, seed=seed, begin=begin, steps=steps, advance=lambda *_: None
        )
        predicted = predictions_of(folder / name, network, held)["score"]
        for modality in MODALITIES:
            if mine := [place for place, one in enumerate(held.samples) if one.modality == modality]:
                samples = [held.samples[place] for place in mine]
                bases, sources = [one.base for one in samples], [one.source for one in samples]
                truth = [one.labels["quality"] for one in samples]
                yield Result(
                    task=(str(n), modality),
                    method=start,
                    seed=seed,
                    agreement=agreement(predicted[mine], truth, bases, sources=sources),
                )
    advance(len(wanted), len(wanted), "")


def rows(found: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    """Yield a row under HEADS for each number of labels and modality: mean SRCC and its range over seeds."""
    for task in sorted({one.task for one in found}, key=lambda task: (int(task[0]), MODALITIES.index(task[1]))):
        arms = [select(found, task=task, method=start) for start in (WITHOUT, STAGE_1)]
        without, begun = (metric(arm, "srcc") for arm in arms)
        yield (*task, *map(_spread, arms), f"{begun - without:+.3f}", str(len(arms[0])))


def _spread(arm: Sequence[Result]) -> str:
    known = [found for one in arm if np.isfinite(found := value(one.agreement.srcc))]
    return f"{np.mean(known):.3f} ({min(known):.3f} to {max(known):.3f})" if known else "–"
