"""Runs of the two stages: the files in the folder of a run, and starting one run from another.

settings.json       settings of the loop; a run is only resumed with the same settings
run.json            its provenance: stage, recipe, seed, targets, samples, the run it started from
state.safetensors   weights and optimizer after the last save
curve.csv, curve.png
predictions.npz     predictions for the samples requested last
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.model.card import Pretrained
from mediqa_node.model.lock import digest
from mediqa_node.model.network import MedIQA
from mediqa_node.model.prompts import FOUR_ONE_HOTS
from mediqa_node.model.sizes import SIZES
from mediqa_node.system import npz
from mediqa_node.system.atomic import write_atomically
from training.data.batches import Batches, Target, targets_of
from training.data.store import alone
from training.data.tokens import tokens_of
from training.data.views import Prepared
from training.evaluate.predictions import predict
from training.fit.initial import BATCHES, initialise
from training.fit.loop import STATE, train, world
from training.fit.losses import stage1_loss, stage2_loss
from training.fit.pretrained import freeze, load_pretrained, pretrained
from training.fit.recipe import Recipe
from training.simulate.degraded import FACTORS

RUN, PREDICTIONS = "run.json", "predictions.npz"
WANTED = (("mas", "CT", True), ("tesla", "MR", True), ("blur", "OP", True))
"""What the parameter head learns of samples that have it: label, modality, whether its logarithm."""
SEVERITIES = (
    *((factor, modality, False) for modality, factors in FACTORS.items() for factor in factors if factor != "blur"),
    ("coarseness", "MR", False),
)
"""What it also learns where a recipe asks for it; no checkpoint predicts them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The provenance of a run (run.json).

    Attributes:
        stage: 1 or 2.
        recipe: recipe of the preset, with `steps` set to the number that ran.
        targets: of the parameter head, with mean and deviation over the training samples: the label map, frozen.
        samples, simulated, patients: number of training samples, of simulated copies among them, of their patients.
        sources: by modality, all that the network has seen, including those of the run that it started from.
        data: digest of the samples, their labels and weights; a run is only resumed on the same data.
        began_from: SHA-256 of the state that the weights were initialised from, or None.
        pretrained: the weights that the encoder began from before any training; None: from none.
        core_seconds: processor time of the first process, over all starts that finished.
    """

    stage: int
    recipe: Recipe
    seed: int
    targets: tuple[Target, ...]
    samples: int
    simulated: int
    patients: int
    sources: Mapping[str, tuple[str, ...]]
    data: str
    began_from: str | None = None
    pretrained: Pretrained | None = None
    core_seconds: float = 0.0

    @property
    def seen(self) -> frozenset[str]:
        """The sources of all modalities."""
        return frozenset(source for each in self.sources.values() for source in each)


def pretrain(
    data: Prepared,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int,
    steps: int | None = None,
    leave_out: Sequence[str] = (),
    trunk: Path | None = None,
    advance: Callable[[int, int, str], None],
) -> MedIQA:
    """Stage 1: the encoder learns physical parameters (paper section 2.2).

    Args:
        leave_out: sources that are not trained on, for choices on unseen sources.
        trunk: file of the encoder's pretrained weights; None: the package of the row's trunk, if it has one.

    Raises:
        ConfigurationError: no parameter differs between samples, or the data have no such source to leave out.
    """
    _check_left_out(data, leave_out)
    trained = data.subset(lambda sample: sample.split == "train" and sample.source not in leave_out)
    if not targets_of(trained, WANTED):
        raise ConfigurationError("no sample has a tube charge, a field strength or a blur that differs from another's")
    run = _run(1, recipe, seed, targets_of(trained, _wanted(recipe)), trained, None)
    return _trained(run, trained, folder, steps, advance, trunk=trunk)


def finetune(
    data: Prepared,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int,
    begin: Path | None = None,
    steps: int | None = None,
    leave_out: Sequence[str] = (),
    trunk: Path | None = None,
    advance: Callable[[int, int, str], None],
) -> MedIQA:
    """Stage 2: train the network on quality, from an earlier run of stage 1 or 2, or from the weights it begins with.

    Args:
        begin: run to start from. The score branch of a run of stage 2 is kept: for a site's own ratings, for example.
        leave_out, trunk: see `pretrain`; a run to start from has its own encoder.

    Raises:
        ConfigurationError: no sample has a quality, the run to start from has another size, or the data have no such
            source to leave out.
    """
    _check_left_out(data, leave_out)
    trained = data.subset(
        lambda sample: sample.split == "train" and "quality" in sample.labels and sample.source not in leave_out
    )
    if not len(trained):
        raise ConfigurationError("no training sample has a quality: import ratings, or use a store of `simulate`")
    if begin is None:
        run = _run(2, recipe, seed, targets_of(trained, _wanted(recipe)), trained, None)
    else:
        before = read_run(begin)
        if before.recipe.size != recipe.size or before.recipe.spec != recipe.spec:
            raise ConfigurationError(f"{begin} trained {before.recipe.size} on other views; give the same preset")
        run = _run(2, recipe, seed, before.targets, trained, begin)
    return _trained(run, trained, folder, steps, advance, begin=begin, trunk=trunk)


def _check_left_out(data: Prepared, leave_out: Sequence[str]) -> None:
    known = sorted({sample.source for sample in data.samples} - {""})
    if unknown := sorted(set(leave_out) - set(known)):
        raise ConfigurationError(
            f"--leave-out: no source {', '.join(unknown)}; the data have {', '.join(known) or 'none with a name'}. "
            f"Give one of these, or leave the option out"
        )


def _trained(
    run: Run,
    data: Prepared,
    folder: Path,
    steps: int | None,
    advance: Callable[[int, int, str], None],
    *,
    begin: Path | None = None,
    trunk: Path | None = None,
) -> MedIQA:
    """Train a run, and wait while another process does: two must not write into one folder."""
    with alone(folder) if world()[0] == 0 else nullcontext():
        return _trained_alone(run, data, folder, steps, advance, begin=begin, trunk=trunk)


def _trained_alone(
    run: Run,
    data: Prepared,
    folder: Path,
    steps: int | None,
    advance: Callable[[int, int, str], None],
    *,
    begin: Path | None,
    trunk: Path | None,
) -> MedIQA:
    recipe = run.recipe
    torch.manual_seed(run.seed)
    network = _network(recipe, run.targets)
    if begin is not None:
        load_state(network, begin)
    elif (given := pretrained(network.size, trunk)) is not None:
        load_pretrained(network, given[0])
        run = replace(run, pretrained=given[1])
    freeze(network, tuned=recipe.trunk_learning_rate is not None)
    if recipe.on_tokens:
        data = tokens_of(data, network.trunk, advance=lambda done, total: advance(done, total, "tokens"))
    batches = Batches(
        data,
        FOUR_ONE_HOTS,
        run.targets,
        batch=recipe.batch,
        seed=run.seed,
        slices=recipe.slices_at_once,
        augment=recipe.augment,
        unknown=recipe.unknown,
        prompted=recipe.prompts,
        modality_share=recipe.share,
        volumes=recipe.volumes,
    )
    loss = stage1_loss if run.stage == 1 else stage2_loss
    settings = recipe.settings(samples=len(data), seed=run.seed, steps=steps)
    if not (folder / STATE).exists() and (begin is None or read_run(begin).stage == 1):
        first = [batches.at(settings.steps + number) for number in range(BATCHES)]
        initialise(network, first, encoder=begin is None)
    made_by = json.loads(json.dumps(_as_json(run), default=str)) | {"core_seconds": None}
    before = read_run(folder).core_seconds if (folder / RUN).exists() else 0.0
    started = time.process_time()
    train(
        network,
        lambda step, rank, processes: batches.at(step, rank=rank, world=processes),
        loss,
        settings,
        folder,
        made_by=made_by,
        advance=lambda step, total, loss: advance(step, total, f"loss {loss:.3f}"),
    )
    spent = before + time.process_time() - started
    if world()[0]:  # the first process writes for all
        return network
    ran = recipe.model_copy(update={"steps": settings.steps, "epochs": None})
    run = replace(run, recipe=ran, core_seconds=round(spent, 1))
    write_atomically(folder / RUN, (json.dumps(_as_json(run), indent=1) + "\n").encode())
    draw_curve(folder)
    return network


def _wanted(recipe: Recipe) -> tuple[tuple[str, str, bool], ...]:
    return WANTED + SEVERITIES * recipe.severities


def _network(recipe: Recipe, targets: Sequence[Target]) -> MedIQA:
    return MedIQA(SIZES[recipe.size], parameters=[target.label for target in targets])


def load_state(network: MedIQA, folder: Path) -> MedIQA:
    """Fill a network with the weights of a run's last state.

    Raises:
        ConfigurationError: the folder has no run, or its weights do not fit.
    """
    try:
        state = load_file(folder / STATE)
        network.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")})
    except (OSError, RuntimeError) as error:
        raise ConfigurationError(f"{folder} holds no run that fits: {error}") from error
    return network.eval()


def trained_network(folder: Path) -> tuple[MedIQA, Run]:
    """Return the network of a run in evaluation mode, and its provenance."""
    run = read_run(folder)
    return load_state(_network(run.recipe, run.targets), folder), run


def predictions_of(
    folder: Path, network: nn.Module, data: Prepared, *, prompted: bool = True
) -> Mapping[str, np.ndarray]:
    """Return `score` (n,) and `parameters` (n, k) that the network of a run predicts for samples.

    This takes minutes, so the result is cached in the folder for the same weights and samples.
    """
    file, state = folder / PREDICTIONS, folder / STATE
    key = f"{digest(state.read_bytes())} {digest_of(data)} {prompted}"
    if file.exists():
        kept = npz.unpacked(file)
        if str(kept["key"]) == key:
            return {"score": kept["score"], "parameters": kept["parameters"]}
    found = predict(network, data, FOUR_ONE_HOTS, prompted=prompted)
    predictions = {"score": found.score, "parameters": found.parameters}
    write_atomically(file, npz.packed({"key": np.array(key), **predictions}))
    return predictions


def read_run(folder: Path) -> Run:
    """Return the provenance of a run; ConfigurationError if the folder has none."""
    try:
        raw = json.loads((folder / RUN).read_text(encoding="utf-8"))
        made = {
            "recipe": Recipe.model_validate(raw["recipe"]),
            "pretrained": Pretrained(**raw["pretrained"]) if raw.get("pretrained") else None,
            "targets": tuple(Target(**one) for one in raw["targets"]),
            "sources": {modality: tuple(each) for modality, each in raw["sources"].items()},
        }
        return Run(**raw | made)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{folder} holds no finished run ({RUN}): {error}") from error


def _run(stage: int, recipe: Recipe, seed: int, targets: tuple[Target, ...], data: Prepared, begin: Path | None) -> Run:
    seen = {(sample.modality, sample.source) for sample in data.samples}
    if begin is not None:
        seen |= {(modality, source) for modality, each in read_run(begin).sources.items() for source in each}
    return Run(
        stage=stage,
        recipe=recipe,
        seed=seed,
        targets=targets,
        samples=len(data),
        simulated=sum(bool(sample.factor) for sample in data.samples),
        patients=len({sample.patient for sample in data.samples}),
        sources={
            modality: tuple(sorted(source for of, source in seen if of == modality))
            for modality in sorted({modality for modality, _ in seen})
        },
        data=digest_of(data),
        began_from=digest((begin / STATE).read_bytes()) if begin is not None else None,
        pretrained=read_run(begin).pretrained if begin is not None else None,
    )


def digest_of(data: Prepared) -> str:
    """Return a digest of all samples, labels and weights."""
    content = [(one.key, one.prompt, one.labels, one.severities, one.weight) for one in data.samples]
    return digest(json.dumps(content, sort_keys=True).encode())


def _as_json(run: Run) -> dict[str, object]:
    return asdict(run) | {"recipe": run.recipe.model_dump()}


def draw_curve(folder: Path) -> None:
    """Draw `curve.png`: the parts of the loss over the steps, raw and smoothed (over 50 steps or a quarter of all)."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    from training.fit.loop import read_curve

    rows = read_curve(folder)
    if not rows:
        return
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    width = min(50, (len(rows) + 3) // 4)
    for name in [one for one in rows[0] if one not in ("step", "learning_rate", "seconds")]:
        values = np.array([row[name] for row in rows])
        (line,) = axes.plot(values, alpha=0.15, linewidth=0.7)
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(np.arange(width - 1, len(values)), smooth, color=line.get_color(), label=name)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend()
    figure.savefig(folder / "curve.png", dpi=110)
    plt.close(figure)
