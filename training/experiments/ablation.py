"""Does stage 1 pay, and when? Stage 2 on few labels, begun from stage 1 and from nothing, at equal steps."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.prompt import MODALITIES
from training.data.views import Prepared
from training.evaluate.metrics import srcc
from training.fit.recipe import Recipe
from training.fit.runs import finetune, read_run, said_by

LABELS = (50, 200, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run: SRCC of quality on held-out sources, by modality; None where undefined."""

    labels: int
    seed: int
    pretrained: bool
    srcc: dict[str, float | None]


def few(data: Prepared, labels: int, seed: int) -> Prepared:
    """Return all held-out samples, and `labels` of the training ones: whole images with their copies, drawn by seed.

    Fewer labels are a part of more, so that sizes differ by what is added alone.
    """
    bases = sorted({(one.modality, one.base) for one in data.samples if one.split == "train"})
    random = np.random.default_rng(seed)
    order = [bases[place] for place in random.permutation(len(bases))]
    chosen: set[str] = set()
    for _, base in order:
        for one in data.samples:
            if one.base == base and one.split == "train" and len(chosen) < labels:
                chosen.add(one.key)
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
) -> Iterator[Trial]:
    """Yield every trial; a run that is there already is not made again.

    Args:
        stage1: runs to begin from, one for each seed.
    """
    if wrong := next((run for run in stage1 if read_run(run).recipe.severities), None):
        raise ConfigurationError(
            f"{wrong} was taught the severities that quality is made of: its labels would be no fewer; "
            f"pretrain with `--preset physical`"
        )
    recipe = recipe.model_copy(update={"severities": False})
    wanted = [(n, run, pretrained) for n in labels for run in stage1 for pretrained in (False, True)]
    held = data.subset(lambda sample: sample.split == "test")
    for done, (n, run, pretrained) in enumerate(wanted):
        seed = read_run(run).seed
        name = f"{n}-{seed}-{'stage1' if pretrained else 'scratch'}"
        advance(done, len(wanted), name)
        network = finetune(
            few(data, n, seed),
            recipe,
            folder / name,
            seed=seed,
            begin=run if pretrained else None,
            steps=steps,
            advance=lambda *_: None,
        )
        said = said_by(folder / name, network, held)["score"]
        found: dict[str, float | None] = {}
        for modality in MODALITIES:
            mine = [place for place, one in enumerate(held.samples) if one.modality == modality]
            if mine:
                found[modality] = srcc(said[mine], [held.samples[place].labels["quality"] for place in mine])
        yield Trial(labels=n, seed=seed, pretrained=pretrained, srcc=found)
    advance(len(wanted), len(wanted), "")


def table(found: Sequence[Trial]) -> Iterator[str]:
    """Yield mean and range over seeds, with and without stage 1."""
    yield f"{'labels':>7} {'modality':9}{'from nothing':>24}{'from stage 1':>24}{'gain':>8}{'seeds':>7}"
    for n in sorted({one.labels for one in found}):
        for modality in found[0].srcc:
            cells, means = [], []
            for pretrained in (False, True):
                values = [
                    value
                    for one in found
                    if (one.labels, one.pretrained) == (n, pretrained) and (value := one.srcc[modality]) is not None
                ]
                means.append(float(np.mean(values)) if values else float("nan"))
                cells.append(f"{means[-1]:.3f} ({min(values):.3f} to {max(values):.3f})" if values else "–")
            seeds = len({one.seed for one in found if one.labels == n})
            yield f"{n:7} {modality:9}{cells[0]:>24}{cells[1]:>24}{means[1] - means[0]:+8.3f}{seeds:7}"
