"""The border between numpy and the network: images and a prompt in, scores out."""

import hashlib
from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch

from mediqa_node.domain.constancy import Constancy
from mediqa_node.domain.execution import Execution
from mediqa_node.domain.preprocessing import NetworkInput, PreprocessSpec
from mediqa_node.domain.prompt import Prompt
from mediqa_node.domain.range_position import RangePosition
from mediqa_node.domain.recall import Recall, fresh
from mediqa_node.domain.scoring import CheckpointId, PatchMaps, Prediction, ScoredSlices
from mediqa_node.image.measure.quality_statistics import as_vector, quality_statistics
from mediqa_node.image.measure.slice_statistics import slice_statistics
from mediqa_node.model.card import Card, missing_evidence
from mediqa_node.model.checkpoint import Regressors, load_whole
from mediqa_node.model.execution import chosen_device, describe, hardware, prepare
from mediqa_node.model.lock import DEFAULT_LOCK, LockEntry, digest, read_lock
from mediqa_node.model.network import MedIQA, NetworkOutput
from mediqa_node.model.prompts import PROMPT_WIDTH

REPORTED = frozenset({"mas", "tesla"})
"""Parameters that reports have a concept for."""


class NetworkScorer:
    """A `Scorer` (domain.scoring): one network, one card, one device; may be called from several threads.

    The same slice gets the same score, bit for bit, whatever else is scored with it (see `execution`).
    Identical slices are scored once: a photograph, which fills all places of the input, costs one.
    """

    def __init__(
        self,
        network: MedIQA,
        card: Card,
        regressors: Regressors | None = None,
        *,
        execution: Execution | None = None,
        card_sha256: str | None = None,
    ) -> None:
        execution = execution or Execution()
        device = chosen_device(execution.device)
        self.card = card
        self._regressors = regressors or {}
        self.hardware = hardware(device)
        self._run = prepare(network, execution, device)
        self._grid = network.size.grid
        self._card_sha256 = card_sha256 or digest(card.to_json())
        self._describe = partial(describe, execution, device, self._run)
        self._recall: Recall = fresh

    def recalling(self, recall: Recall) -> Self:
        """Return this scorer, which does not run or measure again what `recall` knows: the results are the same."""
        other = copy(self)
        other._recall = recall
        return other

    @property
    def checkpoint(self) -> CheckpointId:
        """The checkpoint that scores."""
        card = self.card
        return CheckpointId(
            name=card.name,
            sha256=card.weights_sha256,
            trained=card.trained,
            size=card.size,
            execution=self._describe(),
            card_sha256=self._card_sha256,
            claims=card.claims,
            evaluated=not missing_evidence(card),
        )

    @property
    def spec(self) -> PreprocessSpec:
        """The preprocessing that these weights need."""
        return self.card.preprocess

    def range_position(self, inputs: NetworkInput, modality: str) -> RangePosition | None:
        """Return where a stack lies in the training range of its modality.

        Args:
            inputs: prepared with `spec`.
            modality: CT, MR or OP; None is returned for one without limits in the card.

        Raises:
            NotScorable: it is no photograph of a fundus, or shows too little of one.
        """
        if (limits := self.card.domains.get(modality)) is None:
            return None
        return limits.position(slice_statistics(inputs, self.spec, modality=modality, recall=self._recall))

    @property
    def constancy(self) -> Constancy | None:
        """The pinned scores of the reference set, or None."""
        return self.card.constancy

    def score(self, inputs: NetworkInput, prompt: Prompt) -> ScoredSlices:
        """Score the slices of one stack: views of a slice are averaged, then slices weighted.

        Args:
            inputs: prepared by `spec`.
            prompt: one for all slices.

        Raises:
            ValueError: other shape or type, or an image that is not finite.
            FloatingPointError: the network's output is not finite.
        """
        self._check(inputs)
        unique, place = _unique(inputs.images)
        code = self.code(prompt)
        how = code.tobytes(), self._describe()
        answers = self._recall(
            tuple(unique),
            lambda one: ("network", one, how),
            lambda some: self._outputs(inputs, [unique[one] for one in some], code),
        )
        views = {name: part[place] for name, part in _arrays(answers).items()}
        raw, logits, parameters = (
            mean_by_slice(inputs.slice_of, views[name]) for name in ("score", "slice_logit", "parameters")
        )
        raw, parameters = self._fused(raw, parameters, inputs, prompt.modality.value)
        return ScoredSlices(
            raw=raw,
            quality=None if self.card.quality is None else self.card.quality(raw),
            weights=_softmax(logits),
            n_clamped=0 if self.card.quality is None else self.card.quality.beyond(raw),
            prediction=self._prediction(parameters, prompt.modality.value),
            maps=self._maps(views, inputs),
        )

    def _outputs(self, inputs: NetworkInput, indices: Sequence[int], code: np.ndarray) -> list[NetworkOutput]:
        images = [torch.from_numpy(np.ascontiguousarray(inputs.images[i])) for i in indices]
        return self._run(images, [torch.from_numpy(code)] * len(images)) if images else []

    def _fused(
        self, raw: np.ndarray, parameters: np.ndarray, inputs: NetworkInput, modality: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fuse network and regressors with the shares of the card: scores (n,), parameters (n, k).

        Raises:
            ValueError: the slices themselves are not among the inputs.
        """
        fusion = self.card.fusion.get(modality, {})
        if not fusion:
            return raw, parameters
        if len(inputs.slices) != inputs.n_slices or inputs.window is None:
            raise ValueError(f"to score {modality}: these weights measure slices, and got views alone")
        window = inputs.window
        measured = np.stack(
            self._recall(
                inputs.slices,
                lambda one: ("statistics", _digest(one), one.shape, modality, window),
                lambda some: [as_vector(quality_statistics(one, modality=modality, window=window)) for one in some],
            )
        )
        parameters = parameters.copy()
        for output, share in fusion.items():
            by_statistics = self._regressors[modality][output](measured) if share.statistics else 0.0
            column = next((k for k, one in enumerate(self.card.parameters) if one.name == output), None)
            own = raw if column is None else parameters[:, column]
            both = share.offset + share.network * own + share.statistics * by_statistics
            if column is None:
                raw = both
            else:
                parameters[:, column] = both
        return raw, parameters

    def code(self, prompt: Prompt) -> np.ndarray:
        """Return the encoded prompt, float32 (64,); zeros for weights without prompts."""
        if self.card.prompt is None:
            return np.zeros(PROMPT_WIDTH, dtype=np.float32)
        return self.card.prompt.encode(prompt)

    def _check(self, inputs: NetworkInput) -> None:
        images, edge = inputs.images, self.spec.size_px
        if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != (3, edge, edge) or not len(images):
            raise ValueError(
                f"to score: {images.dtype} of shape {images.shape}; expected float32 of shape (n, 3, {edge}, {edge})"
            )
        if len(inputs.views) != len(images):
            raise ValueError(f"to score: {len(images)} images and {len(inputs.views)} views")
        if not np.isfinite(images).all():
            raise ValueError("to score: an image holds NaN or infinity")

    def _prediction(self, outputs: np.ndarray, modality: str) -> Prediction | None:
        """Return the mean over slices, (n, k), of the parameter of this modality, or None."""
        for parameter, mean in zip(self.card.parameters, outputs.mean(axis=0), strict=True):
            if parameter.modality == modality and parameter.name in REPORTED:
                return parameter.prediction(float(mean))
        return None

    def _maps(self, views: Mapping[str, np.ndarray], inputs: NetworkInput) -> PatchMaps:
        grid = (len(inputs.views), self._grid, self._grid)
        scores = views["patch_score"].reshape(grid)
        return PatchMaps(
            scores=scores.astype(np.float32),
            weights=views["patch_weight"].reshape(grid).astype(np.float32),
            views=inputs.views,
            quality=None if self.card.quality is None else self.card.quality(scores).astype(np.float32),
        )


def load_scorer(
    name: str = "default",
    *,
    lock: Path | Mapping[str, LockEntry] | None = None,
    execution: Execution | None = None,
) -> NetworkScorer:
    """Load a pinned checkpoint, ready to score.

    Args:
        name: entry of the lock.
        lock: lock file, or entries already read; None: those of the package.
        execution: device and arithmetic; None: the defaults.

    Raises:
        CheckpointRefused: see `load_checkpoint` and `execution.prepare`.
    """
    entries = lock if isinstance(lock, Mapping) else read_lock(lock or DEFAULT_LOCK)
    network, card, regressors = load_whole(name, entries)
    # the digest of the file: a hand-written card differs byte for byte from what this version would write
    pinned = entries[name].card_sha256
    return NetworkScorer(network, card, regressors, execution=execution, card_sha256=pinned)


def _arrays(answers: list[NetworkOutput]) -> dict[str, np.ndarray]:
    """Stack the outputs of single images to float64 arrays by field.

    Raises:
        FloatingPointError: a value is NaN or infinite.
    """
    fields = zip(NetworkOutput._fields, zip(*answers, strict=True), strict=True)
    arrays = {name: torch.cat(parts).double().numpy() for name, parts in fields}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise FloatingPointError("the network's answer holds NaN or infinity; the weights or the input are at fault")
    return arrays


def mean_by_slice(slice_of: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the mean over the views of each slice: (m, ...) to (n, ...)."""
    starts = np.flatnonzero(np.diff(slice_of, prepend=-1))
    counts = np.diff(starts, append=len(slice_of)).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(np.add.reduceat(values, starts, axis=0) / counts)


def _unique(images: np.ndarray) -> tuple[dict[bytes, int], np.ndarray]:
    """Return the first index of every distinct image, by its digest, and each image's place among them, (m,)."""
    digests = [_digest(image) for image in images]
    first: dict[bytes, int] = {}
    for index, key in enumerate(digests):
        first.setdefault(key, index)
    places = {key: place for place, key in enumerate(first)}
    return first, np.array([places[key] for key in digests], dtype=np.intp)


def _digest(array: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(array).data).digest()


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Weights of the slices (see `heads.slice_weights`), in float64 so that they sum to 1 within 1e-15."""
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())
