"""Teach the prompt classifier from headers, and say what it is worth on sources that it has not seen.

Labels are the prompts that headers gave; `unknown` teaches nothing. Every source is judged once by a network that was
taught the others (folds of sources), and a final one is taught them all. What decides is not its accuracy but what it
would do in the node: how often it is sure, and how often it is right then.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mediqa_node.domain.errors import ConfigurationError, NotScorable, UndecodablePixels
from mediqa_node.domain.prompt_opinion import Opinion
from mediqa_node.image.preprocess import preprocess
from mediqa_node.model.prompt_classifier import (
    VOCABULARY,
    ClassifierCard,
    ClassifierNetwork,
    LoadedClassifier,
    preprocessing,
)
from training.data.collection import ImageSet
from training.data.dicom_rows import Left, dicom_row, series_below
from training.data.manifest import Row
from training.data.payload import slices_of
from training.evaluate.metrics import Interval, mean_of

_PICTURES = (".jpg", ".jpeg", ".png")
_FEWEST_SOURCES = 3
_SHIFT = 0.06
"""Share of the edge by which a picture is moved at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """The slices of one series with the words of its headers.

    Attributes:
        images: its slices as the classifier is shown them, (n, 3, S, S), float32.
        words: by term; `unknown` where headers do not tell.
    """

    source: str
    modality: str
    images: np.ndarray
    words: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a classifier is taught: Adam, one random slice of each drawn series, words and sources drawn alike.

    Attributes:
        shape: a row of `prompt_classifier.SHAPES`.
        sure: probability from which a word is to count in the node.
    """

    shape: str = "small"
    steps: int = 300
    batch: int = 16
    learning_rate: float = 1e-3
    sure: float = 0.9
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TermResult:
    """How one term fared on held-out sources.

    Attributes:
        n, sources: series whose headers tell it, and where they come from.
        unseen: of those, series whose word no other source has: nobody could have known.
        accuracy: over all n, with an interval over sources.
        usual: accuracy of always saying the word that the other sources say most of this modality.
        sure, right: how many series it was sure of, and its accuracy on them.
    """

    n: int
    sources: int
    unseen: int
    accuracy: Interval
    usual: float
    sure: int
    right: Interval


def rows_of_sets(sets: Sequence[ImageSet]) -> Iterator[Row]:
    """Yield the rows of a collection's patients: DICOM series by their headers, photographs as fundus."""
    for one in sets:
        if one.split != "dev":
            continue
        for found in series_below(one.folder):
            if not isinstance(found, Left):
                paths, headers = found
                row = dicom_row(paths, headers, patient=one.source, source=one.source, licence="", region="unknown")
                if isinstance(row, Row):
                    yield row
        for path in sorted(one.folder.iterdir()):
            if path.suffix.lower() in _PICTURES:
                yield _photograph(path, one.source)


def _photograph(path: Path, source: str) -> Row:
    return Row(
        key=f"{source}-{path.stem}", patient=source, source=source, dimension="2D", modality="OP", region="retina",
        type="cfp", payload_kind="image", paths=(path.absolute(),),
    )  # fmt: skip


def examples_of(rows: Iterable[Row], shape: str) -> Iterator[Example]:
    """Yield what can be looked at of some rows; what the node would not score is passed over."""
    spec = preprocessing(shape)
    for row in rows:
        try:
            slices = slices_of(row, spec)
        except (NotScorable, UndecodablePixels):
            continue
        words = {"modality": row.modality, "region": row.region, "type": row.type}
        shown = preprocess(slices, spec, modality=row.modality, image_type="unknown").images
        yield Example(source=row.source or row.patient, modality=row.modality, images=shown, words=words)


# ── teaching ─────────────────────────────────────────────────────────────────


def teach(
    examples: Sequence[Example], recipe: Recipe, *, advance: Callable[[], None] = lambda: None
) -> LoadedClassifier:
    """Return a classifier taught from some examples; the same seed gives the same weights.

    Raises:
        ConfigurationError: no term has two words: there is nothing to tell apart.
    """
    words = vocabulary(examples)
    if all(len(of_term) < 2 for of_term in words.values()):
        raise ConfigurationError("nothing to tell apart: all series have the same modality, region and type")
    torch.manual_seed(recipe.seed)
    random = np.random.default_rng(recipe.seed)
    network = ClassifierNetwork(recipe.shape, words)
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=recipe.learning_rate, total_steps=max(recipe.steps, 2)
    )
    share = _share(examples)
    network.train()
    for _ in range(recipe.steps):
        drawn = random.choice(len(examples), size=recipe.batch, p=share)
        slices = (examples[i].images[random.integers(len(examples[i].images))] for i in drawn)
        images = np.stack([_moved(one, random) for one in slices])
        logits = network(torch.from_numpy(images))
        losses = [
            nn.functional.cross_entropy(logits[term], _targets(examples, drawn, term, words[term]), ignore_index=-1)
            for term in VOCABULARY
            if any(examples[i].words[term] in words[term] for i in drawn)
        ]
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        optimiser.step()
        schedule.step()
        advance()
    card = ClassifierCard(name="", shape=recipe.shape, words=words, sure=recipe.sure)
    return LoadedClassifier(network, card)


def vocabulary(examples: Sequence[Example]) -> dict[str, tuple[str, ...]]:
    """Return the words that examples teach, by term, in the order of the domain's vocabulary."""
    seen = {term: {one.words[term] for one in examples} for term in VOCABULARY}
    return {term: tuple(word for word in words if word in seen[term]) for term, words in VOCABULARY.items()}


def _targets(
    examples: Sequence[Example], drawn: Sequence[int] | np.ndarray, term: str, words: Sequence[str]
) -> torch.Tensor:
    """Return the number of each word, -1 for `unknown`."""
    said = [examples[i].words[term] for i in drawn]
    return torch.tensor([words.index(word) if word in words else -1 for word in said])


def _share(examples: Sequence[Example]) -> np.ndarray:
    """Return how often each example is drawn: kinds (region and type) alike, then sources, then series."""
    kinds = [(one.words["region"], one.words["type"]) for one in examples]
    sources = Counter(zip(kinds, (one.source for one in examples), strict=True))
    of_kind = Counter(kind for kind, _ in sources)
    share = np.array([1 / of_kind[kind] / sources[kind, one.source] for kind, one in zip(kinds, examples, strict=True)])
    return np.asarray(share / share.sum())


def _moved(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return an image mirrored at random, moved a little, and with another gain."""
    edge = image.shape[-1]
    image = image[..., ::-1] if random.random() < 0.5 else image
    by = random.integers(-int(_SHIFT * edge), int(_SHIFT * edge) + 1, size=2)
    image = np.roll(image, tuple(int(one) for one in by), axis=(-2, -1))
    return np.ascontiguousarray(np.clip(image * random.uniform(0.85, 1.15), 0, 1), dtype=np.float32)


# ── judging ──────────────────────────────────────────────────────────────────

MethodPredictions = tuple[Example, Opinion, frozenset[str], Mapping[str, str]]
"""An example, what was said of it, all words that the others taught, and the usual ones of its modality among them."""


def held_out(
    examples: Sequence[Example], recipe: Recipe, *, folds: int = 5, advance: Callable[[], None] = lambda: None
) -> list[MethodPredictions]:
    """Return for every example what a classifier says that was taught other sources only.

    Raises:
        ConfigurationError: fewer than three sources: none could be held out.
    """
    sources = sorted({one.source for one in examples})
    if len(sources) < _FEWEST_SOURCES:
        raise ConfigurationError(
            f"{len(sources)} sources, {', '.join(sources)}: a classifier needs {_FEWEST_SOURCES}, to be tried on others"
        )
    order = np.random.default_rng(recipe.seed).permutation(sources)
    found: list[MethodPredictions] = []
    for part in np.array_split(order, min(folds, len(sources))):
        others = [one for one in examples if one.source not in part]
        taught = teach(others, recipe, advance=advance)
        known = frozenset(word for words in taught.card.words.values() for word in words)
        for one in examples:
            if one.source in part:
                found.append((one, taught.opinion_of(one.images), known, _usual(others, one.modality)))
    return found


def _usual(examples: Sequence[Example], modality: str) -> dict[str, str]:
    usual = {}
    for term in VOCABULARY:
        of = Counter(
            one.words[term]
            for one in examples
            if (one.modality == modality or term == "modality") and one.words[term] != "unknown"
        )
        usual[term] = of.most_common(1)[0][0] if of else ""
    return usual


def results(judged: Sequence[MethodPredictions]) -> dict[str, TermResult]:
    """Return how each term fared."""
    found = {}
    for term in VOCABULARY:
        told = [one for one in judged if one[0].words[term] != "unknown"]
        right = np.array([opinion.words[term][0] == one.words[term] for one, opinion, _, _ in told], dtype=float)
        sure = np.array([opinion.words[term][1] >= opinion.sure for _, opinion, _, _ in told], dtype=bool)
        sources = [one.source for one, _, _, _ in told]
        found[term] = TermResult(
            n=len(told),
            sources=len(set(sources)),
            unseen=sum(one.words[term] not in known for one, _, known, _ in told),
            accuracy=mean_of(right, sources),
            usual=float(np.mean([one.words[term] == usual[term] for one, _, _, usual in told])) if told else 0.0,
            sure=int(sure.sum()),
            right=mean_of(right[sure], [source for source, is_sure in zip(sources, sure, strict=True) if is_sure]),
        )
    return found


def earns_its_place(found: Mapping[str, TermResult], *, sure: float) -> bool:
    """Whether what the node would fill (region, type) is right as often as the node would claim, at the least."""
    ends = [found[term].right.low for term in ("region", "type")]
    return all(end is not None and end >= sure for end in ends)
