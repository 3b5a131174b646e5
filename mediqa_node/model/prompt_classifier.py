"""Predict modality, region and type from one slice (paper section 2.2), where headers leave them open.

The paper's classifier is ViT-B/16 (12 layers, 12 heads, MLP 3072), compared with VGG-16. Images are prepared without
the prompts to predict: CT in a window that shows everything, MR by percentiles of the body, photographs as they
are. A checkpoint is one of `mediqa_node.model.lock`: weights as safetensors and a card.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_torch
from safetensors.torch import save as save_torch
from timm.models.vgg import VGG
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.domain.preprocessing import IntensityRule, PreprocessSpec
from mediqa_node.domain.prompt import MODALITIES, REGIONS, TYPES
from mediqa_node.domain.prompt_opinion import Opinion
from mediqa_node.image.preprocess import preprocess
from mediqa_node.model.card_training_range import is_number, require
from mediqa_node.model.lock import (
    CARD_FILE,
    DEFAULT_LOCK,
    WEIGHTS_FILE,
    LockEntry,
    card_bytes,
    digest,
    pinned,
    read,
    read_lock,
)
from mediqa_node.model.sizes import SIZES
from mediqa_node.model.trunk import TrunkTokens

FORMAT = "prompt-classifier-1"
VOCABULARY = {"modality": MODALITIES, "region": REGIONS[1:], "type": TYPES[1:]}
"""The words that can be predicted; `unknown` is not a class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One architecture.

    Attributes:
        image_px: edge of the square input.
        make: returns a network for a number of outputs: images (B, 3, S, S) to (B, outputs).
    """

    image_px: int
    make: Callable[[int], nn.Module]


class TrunkClassifier(nn.Module):
    """A linear layer on the pooled tokens of a pretrained trunk: their means and deviations over the grid."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        size = SIZES["e16"]
        assert size.trunk is not None
        self.trunk = TrunkTokens(size.trunk, image_px=size.image_px, grid=size.grid)
        self.norm = nn.BatchNorm1d(2 * self.trunk.width, affine=False)
        self.head = nn.Linear(2 * self.trunk.width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, S, S), 0..1, to (B, outputs)."""
        tokens = self.trunk(images)
        result: Tensor = self.head(self.norm(torch.cat([tokens.mean(dim=1), tokens.std(dim=1)], dim=1)))
        return result


def _vit(image_px: int, **shape: Any) -> Callable[[int], nn.Module]:
    return lambda outputs: VisionTransformer(img_size=image_px, num_classes=outputs, **shape)


def _vgg(width: int, **head: Any) -> Callable[[int], nn.Module]:
    depths = (2, 2, 3, 3, 3)
    layers = [cell for i, n in enumerate(depths) for cell in (*[min(8, 2**i) * width] * n, "M")]
    return lambda outputs: VGG(layers, num_classes=outputs, norm_layer=nn.BatchNorm2d, **head)


SHAPES = {
    "paper": Shape(image_px=224, make=_vit(224, embed_dim=768, depth=12, num_heads=12, mlp_ratio=4.0)),
    "small": Shape(image_px=128, make=_vit(128, embed_dim=96, depth=4, num_heads=3, mlp_ratio=2.0)),
    "trunk": Shape(image_px=224, make=TrunkClassifier),
    "vgg": Shape(image_px=224, make=_vgg(64)),
    "vgg_small": Shape(image_px=128, make=_vgg(8, mlp_ratio=1 / 64)),
}
"""`paper` and `vgg` as published; `trunk` begins from pretrained features; the small ones can be trained on a CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierCard:
    """The card of a classifier: its network, words and preprocessing.

    Attributes:
        shape: a row of SHAPES.
        words: the trained words by term, in the order of the outputs; () for a term without labels.
        sure: probability from which a word is used.
        preprocess: fingerprint of the preprocessing.
        training_data, metrics: for people.
    """

    name: str
    shape: str
    words: Mapping[str, tuple[str, ...]]
    sure: float
    weights_sha256: str = ""
    preprocess: str = ""
    training_data: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the card's file: UTF-8, sorted, one value per line."""
        content = asdict(self) | {"format": FORMAT}
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def preprocessing(shape: str) -> PreprocessSpec:
    """Return the preprocessing for a shape, for images of any modality."""
    rules = {
        "CT": IntensityRule(kind="window", low=-1000.0, high=1000.0),
        "MR": IntensityRule(kind="percentile", low=0.5, high=99.5),
        "OP": IntensityRule(kind="window", low=0.0, high=255.0),
    }
    return PreprocessSpec(size_px=SHAPES[shape].image_px, slices=7, intensity=rules)


class ClassifierNetwork(nn.Module):
    """Predict the words of every term from one slice."""

    def __init__(self, shape: str, words: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self._counts = {term: len(words[term]) for term in VOCABULARY}
        self.network = SHAPES[shape].make(sum(self._counts.values()))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map images (B, 3, S, S), 0..1, to logits by term, (B, words)."""
        parts = self.network(images).split(list(self._counts.values()), dim=1)
        return dict(zip(self._counts, parts, strict=True))


class LoadedClassifier:
    """A classifier with its card; see `domain.prompt_opinion.PromptClassifier`."""

    def __init__(self, network: ClassifierNetwork, card: ClassifierCard) -> None:
        self.card = card
        self.network = network.eval()
        self._spec = preprocessing(card.shape)

    def opinion(self, images: Sequence[np.ndarray], modality: str) -> Opinion:
        """Return the most probable words, averaged over the slices of a stack."""
        inputs = preprocess(images, self._spec, modality=modality, image_type="unknown")
        return self.opinion_of(inputs.images)

    def opinion_of(self, prepared: np.ndarray) -> Opinion:
        """Return the same for prepared slices, (n, 3, S, S)."""
        with torch.inference_mode():
            logits = self.network(torch.from_numpy(prepared))
        words = dict.fromkeys(logits, ("unknown", 0.0))
        for term, found in logits.items():
            if self.card.words[term]:
                likely = found.softmax(dim=1).mean(dim=0)
                best = int(likely.argmax())
                words[term] = (self.card.words[term][best], float(likely[best]))
        return Opinion(words=words, sure=self.card.sure)


def save_classifier(directory: Path, network: ClassifierNetwork, card: ClassifierCard) -> LockEntry:
    """Write weights and card (digest and preprocessing filled in) and return the entry to pin them with."""
    weights = save_torch({key: value.contiguous().cpu() for key, value in network.state_dict().items()})
    full = replace(card, weights_sha256=digest(weights), preprocess=preprocessing(card.shape).fingerprint())
    directory.mkdir(parents=True, exist_ok=True)
    (directory / WEIGHTS_FILE).write_bytes(weights)
    (directory / CARD_FILE).write_bytes(full.to_json())
    return LockEntry(directory=directory, sha256=digest(weights), card_sha256=digest(full.to_json()))


def load_classifier(name: str, lock: Path | Mapping[str, LockEntry] | None = None) -> LoadedClassifier:
    """Return the classifier that the lock pins under a name.

    Raises:
        CheckpointRefused: not in the lock, a digest differs, or its card is not supported.
    """
    entries = lock if isinstance(lock, Mapping) else read_lock(lock or DEFAULT_LOCK)
    if name not in entries:
        raise CheckpointRefused(f"no classifier {name!r} in the model lock; it has: {', '.join(entries) or 'none'}")
    entry = entries[name]
    card = read_classifier_card(card_bytes(name, entry))
    if entry.directory is None:
        raise CheckpointRefused(f"classifier {name!r}: the lock gives no directory")
    weights = pinned(name, "weights", read(name, entry.directory / WEIGHTS_FILE), entry.sha256)
    if card.weights_sha256 != entry.sha256:
        raise CheckpointRefused(f"classifier {name!r}: its card belongs to other weights ({card.weights_sha256})")
    network = ClassifierNetwork(card.shape, card.words)
    try:
        network.load_state_dict(load_torch(weights), strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointRefused(f"classifier {name!r}: weights do not fit {card.shape}: {error}") from error
    return LoadedClassifier(network, card)


def read_classifier_card(content: bytes) -> ClassifierCard:
    """Read a card and check that this version supports it.

    Raises:
        CheckpointRefused: not the card of a classifier, or a value that this version does not support.
    """
    try:
        raw = json.loads(content)
        if (version := raw.pop("format", None)) != FORMAT:
            raise ValueError(f"format {version!r}; a classifier has {FORMAT!r}")
        card = ClassifierCard(**raw | {"words": {term: tuple(words) for term, words in raw["words"].items()}})
        require(card.shape in SHAPES, f"unknown shape {card.shape!r}; known: {', '.join(SHAPES)}")
        require(set(card.words) == set(VOCABULARY), f"words for {sorted(card.words)}, not {sorted(VOCABULARY)}")
        for term, words in card.words.items():
            require(set(words) <= set(VOCABULARY[term]), f"unknown words of {term}: {words}")
        require(is_number(card.sure) and 0 < card.sure <= 1, f"sure {card.sure!r}")
        require(card.preprocess == preprocessing(card.shape).fingerprint(), "images were prepared in another way")
    except KeyError as error:
        raise CheckpointRefused(f"card of a classifier lacks {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointRefused(f"card of a classifier cannot be honoured: {error}") from error
    return card
