"""Training batches: a pure function of seed and step, so that a killed run resumes identically."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.prompt import MODALITIES, prompt_of
from mediqa_node.model.prompts import PromptCode
from training.data.store import BODY, Sample
from training.data.views import Prepared

Members = tuple[int, ...]
"""A sample of a batch: one place, or those of the slices of a volume."""

GROUP = 4
"""Copies of one image, or as many series, side by side in a batch: they are ranked among each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Images of one step, m views of b samples.

    Attributes:
        images: (m, 3, S, S), or tokens of a frozen trunk, (m, N, T).
        prompts: (m, 64).
        sample_of: the sample that each view belongs to, (m,); slices of one sample are weighted (paper: Q = sum w q).
        quality: (b,), NaN where unknown.
        parameters: targets of the parameter head, in its units, (b, k), NaN where unknown.
        group: samples of one group are ranked against each other, (b,).
        weight: of each sample in the loss, (b,).
    """

    images: Tensor
    prompts: Tensor
    sample_of: Tensor
    quality: Tensor
    parameters: Tensor
    group: Tensor
    weight: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One output of the parameter head during training.

    Attributes:
        label: a key of `Sample.labels` or `Sample.severities`.
        modality: samples of other modalities have no such label.
        log: whether the logarithm is learnt.
        mean, sd: of the (logarithm of the) label over the training samples, for conversion to standard units.
        lowest, highest: of the label over the training samples; None: of a run of an earlier version.
    """

    label: str
    modality: str
    log: bool
    mean: float
    sd: float
    lowest: float | None = field(default=None, compare=False)
    highest: float | None = field(default=None, compare=False)

    def standard(self, labels: np.ndarray) -> np.ndarray:
        """Return labels in standard units."""
        return np.asarray(((np.log(labels) if self.log else labels) - self.mean) / self.sd)


class Batches:
    """Draws batches from prepared samples.

    Args:
        batch: samples per step, over all processes.
        modality_share: how often each modality is drawn; None: equally often.
        slices: number drawn from a volume per step; None: all.
        augment: mirror and rotate views; photographs are only mirrored.
        unknown: how often region and type are hidden from the network.
        volumes: how often simulated slices of one stack are put together to a volume. Its quality is the mean over
            its slices, each weighted by how much of the body it shows.
    """

    def __init__(
        self,
        data: Prepared,
        code: PromptCode,
        targets: Sequence[Target],
        *,
        batch: int,
        seed: int,
        slices: int | None = None,
        augment: bool = True,
        unknown: float = 0.15,
        prompted: bool = True,
        modality_share: Mapping[str, float] | None = None,
        volumes: float = 0.0,
    ) -> None:
        self._data, self._code, self._targets = data, code, targets
        self._batch, self._seed, self._slices = batch, seed, slices
        self._augment, self._unknown, self._prompted = augment, unknown, prompted
        self._volumes = volumes
        self._groups: dict[str, list[list[int]]] = {}
        by_base: dict[tuple[str, str], list[int]] = {}
        for place, sample in enumerate(data.samples):
            by_base.setdefault((sample.modality, sample.base), []).append(place)
        for (modality, _), places in by_base.items():
            self._groups.setdefault(modality, []).append(places)
        self._stacks = _stacks(data.samples, self._groups)
        known = [modality for modality in MODALITIES if modality in self._groups]
        share = np.array([1.0 if modality_share is None else modality_share.get(modality, 0.0) for modality in known])
        self._modalities, self._share = known, share / share.sum()
        self._labels = labels_of(data, targets)

    def at(self, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        """Return one process's share of the batch of a step: whole groups, dealt in turn.

        Raises:
            ConfigurationError: there are fewer groups than processes.
        """
        random = np.random.default_rng([self._seed, step])
        drawn = self._drawn(random)
        mine = drawn[rank::world]
        if not mine:
            raise ConfigurationError(
                f"a batch of {self._batch} samples is {len(drawn)} group(s) of up to {GROUP} copies, too few for "
                f"{world} processes: raise `batch` to {GROUP * world}, or start fewer processes"
            )
        own = np.random.default_rng([self._seed, step, rank + 1])
        return self._made(mine, own)

    def _drawn(self, random: np.random.Generator) -> list[list[Members]]:
        groups: list[list[Members]] = []
        while sum(len(group) for group in groups) < self._batch:
            modality = self._modalities[int(random.choice(len(self._modalities), p=self._share))]
            stacks = self._stacks.get(modality, [])
            if self._volumes and stacks and random.random() < self._volumes:
                chosen = self._volumes_of(stacks[int(random.integers(len(stacks)))], random)
            else:
                chosen = self._copies(self._groups[modality], random)
            groups.append(chosen[: max(1, self._batch - sum(len(group) for group in groups))])
        return groups

    def _copies(self, of_modality: list[list[int]], random: np.random.Generator) -> list[Members]:
        places = of_modality[int(random.integers(len(of_modality)))]
        if len(places) == 1:  # real series: four form a group
            return [(of_modality[int(random.integers(len(of_modality)))][0],) for _ in range(GROUP)]
        return [(int(place),) for place in random.permutation(places)[:GROUP]]

    def _volumes_of(self, stack: list[list[int]], random: np.random.Generator) -> list[Members]:
        """Return volumes of the slices of one stack, each degraded by one factor as far as there are such copies."""
        factors = sorted({self._data.samples[place].factor for places in stack for place in places})
        wanted = min(len(stack), self._slices or len(stack))
        found: list[Members] = []
        for _ in range(GROUP):
            factor = factors[int(random.integers(len(factors)))]
            members = []
            for index in sorted(random.permutation(len(stack))[:wanted]):
                alike = [place for place in stack[index] if self._data.samples[place].factor == factor]
                members.append(int(random.choice(alike or stack[index])))
            found.append(tuple(members))
        return found

    def _made(self, groups: Sequence[Sequence[Members]], random: np.random.Generator) -> Batch:
        drawn = [members for group in groups for members in group]
        images, prompts, sample_of = [], [], []
        for number, members in enumerate(drawn):
            shown = np.concatenate([self._data.views(place, self._chosen_views(place, random)) for place in members])
            sample = self._data.samples[members[0]]
            images.append(_turned(shown, random, photograph=sample.modality == "OP") if self._augment else shown)
            words = dict(sample.prompt)
            if random.random() < self._unknown:
                words |= {"region": "unknown", "type": "unknown"} if sample.modality != "OP" else {}
            prompt = self._code.encode(prompt_of(words))
            prompts += [prompt if self._prompted else np.zeros_like(prompt)] * len(shown)
            sample_of += [number] * len(shown)
        labels = [self._of_members(members) for members in drawn]
        return Batch(
            images=torch.from_numpy(np.concatenate(images)),
            prompts=torch.from_numpy(np.stack(prompts)),
            sample_of=torch.tensor(sample_of),
            quality=torch.from_numpy(np.array([quality for quality, _ in labels], dtype=np.float32)),
            parameters=torch.from_numpy(np.stack([parameters for _, parameters in labels])),
            group=torch.tensor([number for number, group in enumerate(groups) for _ in group]),
            weight=torch.tensor([self._data.samples[members[0]].weight for members in drawn]),
        )

    def _of_members(self, members: Members) -> tuple[float, np.ndarray]:
        """Return the quality and the parameters, (k,), of a sample; of a volume, means over its slices."""
        quality, parameters = self._labels
        if len(members) == 1:
            return float(quality[members[0]]), parameters[members[0]]
        mean = quality_of_volume([self._data.samples[place] for place in members], quality[list(members)])
        return mean, np.asarray(parameters[list(members)].mean(axis=0), dtype=np.float32)

    def _chosen_views(self, place: int, random: np.random.Generator) -> list[int]:
        """Return one view of each drawn slice."""
        slice_of = self._data.slice_of(place)
        slices = np.unique(slice_of)
        if self._slices is not None and len(slices) > self._slices:
            slices = np.sort(random.permutation(slices)[: self._slices])
        return [int(random.choice(np.flatnonzero(slice_of == one))) for one in slices]


def quality_of_volume(slices: Sequence[Sample], quality: np.ndarray) -> float:
    """Return the quality of a volume: the mean over its slices, each weighted by how much of the body it shows."""
    body = [one.settings.get(BODY, 1.0) + 1e-3 for one in slices]
    return float(np.average(quality, weights=body))


def _stacks(samples: Sequence[Sample], groups: Mapping[str, list[list[int]]]) -> dict[str, list[list[list[int]]]]:
    """Return the simulated slices that can form volumes: by modality, for every stack the copies of each slice."""
    found: dict[str, dict[str, list[list[int]]]] = {}
    for modality, bases in groups.items():
        for places in bases:
            sample = samples[places[0]]
            if sample.factor and sample.prompt["dimension"] == "3D":
                found.setdefault(modality, {}).setdefault(sample.stack, []).append(places)
    return {modality: [one for one in stacks.values() if len(one) > 1] for modality, stacks in found.items()}


def labels_of(data: Prepared, targets: Sequence[Target]) -> tuple[np.ndarray, np.ndarray]:
    """Return quality (n,) and parameters (n, k) of samples in standard units, float32, NaN where unknown."""
    quality = np.array([sample.labels.get("quality", np.nan) for sample in data.samples], dtype=np.float32)
    parameters = np.full((len(data.samples), len(targets)), np.nan, dtype=np.float32)
    for column, target in enumerate(targets):
        known = [sample.known.get(target.label, np.nan) for sample in data.samples]
        mine = np.array([sample.modality == target.modality for sample in data.samples], dtype=bool)
        parameters[mine, column] = target.standard(np.array(known)[mine])
    return quality, parameters


def targets_of(data: Prepared, wanted: Sequence[tuple[str, str, bool]]) -> tuple[Target, ...]:
    """Return targets for (label, modality, log) with mean and deviation over the samples, if they vary."""
    found = []
    for label, modality, log in wanted:
        values = np.array(
            [
                value
                for sample in data.samples
                if sample.modality == modality
                and (value := sample.known.get(label)) is not None
                and (value > 0 or not log)
            ]
        )
        learned = np.log(values) if log else values
        if len(values) > 1 and float(learned.std()) > 1e-6:
            found.append(
                Target(
                    label=label,
                    modality=modality,
                    log=log,
                    mean=float(learned.mean()),
                    sd=float(learned.std()),
                    lowest=float(values.min()),
                    highest=float(values.max()),
                )
            )
    return tuple(found)


def _turned(images: np.ndarray, random: np.random.Generator, *, photograph: bool) -> np.ndarray:
    """Mirror at random, and rotate by quarter turns except photographs, where lighting has a direction.

    Args:
        images: (m, 3, S, S), or tokens (m, N, T), which are rearranged on their grid.
    """
    if images.ndim == 3:
        m, n, width = images.shape
        edge = round(n**0.5)
        grid = images.reshape(m, edge, edge, width).transpose(0, 3, 1, 2)
        turned = _turned(grid, random, photograph=photograph)
        return np.ascontiguousarray(turned.transpose(0, 2, 3, 1).reshape(m, n, width))
    if random.random() < 0.5:
        images = images[..., ::-1]
    if random.random() < 0.5:
        images = images[..., ::-1, :]
    if not photograph and random.random() < 0.5:
        images = images.swapaxes(-1, -2)
    return np.ascontiguousarray(images)
