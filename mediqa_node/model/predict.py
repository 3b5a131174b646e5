"""The border between numpy and the network: images and a prompt in, scores out."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from mediqa_node.domain.assessment import CheckpointId, Prediction, PreprocessSpec, ScoredSlices
from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.domain.prompt import Prompt
from mediqa_node.model.card import Card
from mediqa_node.model.checkpoint import DEFAULT_LOCK, LockEntry, load_checkpoint
from mediqa_node.model.network import Judgement, MedIQA


class NetworkScorer:
    """A `Scorer` (domain.assessment): one network, one card, one device.

    The same slice gets the same score, bit for bit, whatever else is scored with it: on a CPU
    slices run one at a time (batching gains nothing there), on a GPU as one batch with
    deterministic kernels. Identical slices are scored once.
    """

    def __init__(self, network: MedIQA, card: Card, *, device: torch.device) -> None:
        self.card = card
        self._network = network.to(device).eval()
        self._device = device

    @property
    def checkpoint(self) -> CheckpointId:
        """Which weights speak."""
        card = self.card
        return CheckpointId(name=card.name, sha256=card.weights_sha256, trained=card.trained, size=card.size)

    @property
    def spec(self) -> PreprocessSpec:
        """How pixels must be prepared for these weights."""
        return self.card.preprocess

    def score(self, images: np.ndarray, prompt: Prompt) -> ScoredSlices:
        """Score the slices of one stack.

        Args:
            images: float32, (n, 3, size, size), 0..1, prepared as `spec` says.
            prompt: one for all slices.

        Raises:
            ValueError: other shape or type, or an image that is not finite.
            FloatingPointError: the network's answer is not finite.
        """
        self._check(images)
        unique, place = _unique_slices(images)
        answer = self._judge(images[unique], self.card.prompt.encode(prompt))
        raw = _finite(answer.score)[place]
        logits = _finite(answer.slice_logit)[place]
        return ScoredSlices(
            raw=raw,
            quality=self.card.quality(raw),
            weights=_softmax(logits),
            prediction=self._prediction(answer, place, prompt.modality.value),
        )

    def _check(self, images: np.ndarray) -> None:
        edge = self.spec.size_px
        if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != (3, edge, edge) or not len(images):
            raise ValueError(
                f"to score: {images.dtype} of shape {images.shape}; expected float32 of shape (n, 3, {edge}, {edge})"
            )
        if not np.isfinite(images).all():
            raise ValueError("to score: an image holds NaN or infinity")

    @torch.inference_mode()
    def _judge(self, images: np.ndarray, code: np.ndarray) -> Judgement:
        batch = torch.from_numpy(np.ascontiguousarray(images)).to(self._device)
        prompts = torch.from_numpy(code).to(self._device).expand(len(batch), -1)
        if self._device.type != "cpu":
            return self._network(batch, prompts)
        return _join([self._network(batch[i : i + 1], prompts[i : i + 1]) for i in range(len(batch))])

    def _prediction(self, answer: Judgement, place: np.ndarray, modality: str) -> Prediction | None:
        """The mean over slices of the parameter that belongs to this modality, or None."""
        if answer.parameters is None:
            return None
        means = _finite(answer.parameters)[place].mean(axis=0)
        for parameter, mean in zip(self.card.parameters, means, strict=True):
            if parameter.modality == modality:
                return Prediction(name=parameter.name, value=parameter.value(float(mean)), unit=parameter.unit)
        return None


def load_scorer(
    name: str = "default",
    *,
    device: str = "auto",
    lock: Path | Mapping[str, LockEntry] = DEFAULT_LOCK,
    threads: int | None = None,
) -> NetworkScorer:
    """Load a pinned checkpoint, ready to score.

    Args:
        name: entry of the lock.
        device: `auto` (CUDA if there is one, else CPU), `cpu`, `cuda`, `cuda:1`.
        lock: lock file, or entries already read.
        threads: threads of torch's one pool, for the whole process; None leaves it alone.

    Raises:
        CheckpointRefused: see `load_checkpoint`; or there is no such device.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise CheckpointRefused(f"checkpoint {name!r} was to run on {device}, but torch finds no CUDA device")
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
    network, card = load_checkpoint(name, lock)
    return NetworkScorer(network, card, device=chosen)


def _join(answers: list[Judgement]) -> Judgement:
    parameters = [answer.parameters for answer in answers if answer.parameters is not None]
    return Judgement(
        score=torch.cat([answer.score for answer in answers]),
        slice_logit=torch.cat([answer.slice_logit for answer in answers]),
        parameters=torch.cat(parameters) if parameters else None,
    )


def _unique_slices(images: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Return the first index of every distinct slice, and for each slice its place in that list, (n,)."""
    first: dict[bytes, int] = {}
    unique: list[int] = []
    place = np.empty(len(images), dtype=np.intp)
    for index, image in enumerate(images):
        key = hashlib.sha256(image.tobytes()).digest()
        if key not in first:
            first[key] = len(unique)
            unique.append(index)
        place[index] = first[key]
    return unique, place


def _finite(values: torch.Tensor) -> np.ndarray:
    array = values.double().cpu().numpy()
    if not np.isfinite(array).all():
        raise FloatingPointError("the network's answer holds NaN or infinity; the weights or the input are at fault")
    return array


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Weights of the slices (see `heads.slice_weights`), in float64 so that they sum to 1 within 1e-15."""
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())
