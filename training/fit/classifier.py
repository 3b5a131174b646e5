"""Train the prompt classifier on prompts derived from headers, and evaluate it on held-out sources.

Labels are the prompts from headers; `unknown` is not a label. Every source is evaluated by a network that was
trained on others (folds of sources), and a final network is trained on all. The criterion is not accuracy but the
effect in the node: how often the classifier is confident, and how often it is then right.
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
    TrunkClassifier,
    preprocessing,
)
from mediqa_node.model.sizes import SIZES
from mediqa_node.reader_study.statistics import Interval
from training.data.collection import ImageSet, files_of
from training.data.dicom_rows import Left, dicom_row, series_below
from training.data.manifest import Row
from training.data.payload import slices_of
from training.evaluate.metrics import mean_of
from training.fit.pretrained import pretrained

_PICTURES = (".jpg", ".jpeg", ".png")
_FEWEST_SOURCES = 3
_SHIFT = 0.06
"""Share of the edge by which a picture is moved at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """The slices of one series with the words of its headers.

    Attributes:
        images: its slices as input of the classifier, (n, 3, S, S), float32.
        words: by term; `unknown` if headers have none.
    """

    source: str
    modality: str
    images: np.ndarray
    words: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a classifier is trained: Adam, one random slice of each drawn series, words and sources equally often.

    Attributes:
        shape: a row of `prompt_classifier.SHAPES`.
        sure: probability from which the node uses a word.
    """

    shape: str = "small"
    steps: int = 300
    batch: int = 16
    learning_rate: float = 1e-3
    sure: float = 0.9
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TermResult:
    """Results of one term on held-out sources.

    Attributes:
        n, sources: number of series with the term in their headers, and of their sources.
        unseen: of those, series with a word that no other source has, so that it cannot be predicted.
        accuracy: over all n, with an interval over sources.
        usual: accuracy of the most frequent word of this modality in the other sources.
        sure, right: number of confident predictions, and their accuracy.
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
        for path in files_of(one.folder):
            if path.suffix.lower() in _PICTURES:
                yield _photograph(path, one.source)


def _photograph(path: Path, source: str) -> Row:
    return Row(
        key=f"{source}-{path.stem}", patient=source, source=source, dimension="2D", modality="OP", region="retina",
        type="cfp", payload_kind="image", paths=(path.absolute(),),
    )  # fmt: skip


def examples_of(rows: Iterable[Row], shape: str) -> Iterator[Example]:
    """Yield as examples the rows that the node would score."""
    spec = preprocessing(shape)
    for row in rows:
        try:
            slices = slices_of(row, spec)
        except (NotScorable, UndecodablePixels):
            continue
        words = {"modality": row.modality, "region": row.region, "type": row.type}
        shown = preprocess(slices, spec, modality=row.modality, image_type="unknown").images
        yield Example(source=row.source or row.patient, modality=row.modality, images=shown, words=words)


# ── training ─────────────────────────────────────────────────────────────────


def fit_classifier(
    examples: Sequence[Example], recipe: Recipe, *, advance: Callable[[], None] = lambda: None
) -> LoadedClassifier:
    """Return a classifier trained on some examples; the same seed gives the same weights.

    Raises:
        ConfigurationError: no term has two words, so there is nothing to learn.
    """
    words = vocabulary(examples)
    if all(len(of_term) < 2 for of_term in words.values()):
        raise ConfigurationError("nothing to learn: all series have the same modality, region and type")
    torch.manual_seed(recipe.seed)
    random = np.random.default_rng(recipe.seed)
    network = ClassifierNetwork(recipe.shape, words)
    _begin_from_pretrained(network.network)
    learning = [one for one in network.parameters() if one.requires_grad]
    optimiser = torch.optim.Adam(learning, lr=recipe.learning_rate)
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


def _begin_from_pretrained(network: nn.Module) -> None:
    """Give a classifier on a trunk the trunk's pretrained weights, and keep them as they are."""
    if isinstance(network, TrunkClassifier) and (given := pretrained(SIZES["e16"])) is not None:
        network.load_state_dict(given[0], strict=False)
        network.trunk.requires_grad_(requires_grad=False)


def vocabulary(examples: Sequence[Example]) -> dict[str, tuple[str, ...]]:
    """Return the words of examples by term, in the order of the vocabulary."""
    seen = {term: {one.words[term] for one in examples} for term in VOCABULARY}
    return {term: tuple(word for word in words if word in seen[term]) for term, words in VOCABULARY.items()}


def _targets(
    examples: Sequence[Example], drawn: Sequence[int] | np.ndarray, term: str, words: Sequence[str]
) -> torch.Tensor:
    """Return the index of each word, -1 for `unknown`."""
    wanted = [examples[i].words[term] for i in drawn]
    return torch.tensor([words.index(word) if word in words else -1 for word in wanted])


def _share(examples: Sequence[Example]) -> np.ndarray:
    """Return the sampling weight of each example: equal over kinds (region and type), then sources, then series."""
    kinds = [(one.words["region"], one.words["type"]) for one in examples]
    sources = Counter(zip(kinds, (one.source for one in examples), strict=True))
    of_kind = Counter(kind for kind, _ in sources)
    share = np.array([1 / of_kind[kind] / sources[kind, one.source] for kind, one in zip(kinds, examples, strict=True)])
    return np.asarray(share / share.sum())


def _moved(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return an image randomly mirrored, shifted a little and with another gain."""
    edge = image.shape[-1]
    image = image[..., ::-1] if random.random() < 0.5 else image
    by = random.integers(-int(_SHIFT * edge), int(_SHIFT * edge) + 1, size=2)
    image = np.roll(image, tuple(int(one) for one in by), axis=(-2, -1))
    return np.ascontiguousarray(np.clip(image * random.uniform(0.85, 1.15), 0, 1), dtype=np.float32)


# ── evaluation ──────────────────────────────────────────────────────────────────

HeldOut = tuple[Example, Opinion, frozenset[str], Mapping[str, str]]
"""An example, its prediction, all words of the training sources, and the most frequent ones of its modality."""


def held_out(
    examples: Sequence[Example], recipe: Recipe, *, folds: int = 5, advance: Callable[[], None] = lambda: None
) -> list[HeldOut]:
    """Return for every example the prediction of a classifier that was trained on other sources only.

    Raises:
        ConfigurationError: fewer than three sources, so that none can be held out.
    """
    sources = sorted({one.source for one in examples})
    if len(sources) < _FEWEST_SOURCES:
        raise ConfigurationError(
            f"{len(sources)} sources, {', '.join(sources)}: a classifier needs {_FEWEST_SOURCES} to be tested on others"
        )
    order = np.random.default_rng(recipe.seed).permutation(sources)
    found: list[HeldOut] = []
    for part in np.array_split(order, min(folds, len(sources))):
        others = [one for one in examples if one.source not in part]
        fitted = fit_classifier(others, recipe, advance=advance)
        known = frozenset(word for words in fitted.card.words.values() for word in words)
        for one in examples:
            if one.source in part:
                found.append((one, fitted.opinion_of(one.images), known, _usual(others, one.modality)))
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


def results(predictions: Sequence[HeldOut]) -> dict[str, TermResult]:
    """Return the results of each term."""
    found = {}
    for term in VOCABULARY:
        labelled = [one for one in predictions if one[0].words[term] != "unknown"]
        right = np.array([opinion.words[term][0] == one.words[term] for one, opinion, _, _ in labelled], dtype=float)
        sure = np.array([opinion.words[term][1] >= opinion.sure for _, opinion, _, _ in labelled], dtype=bool)
        sources = [one.source for one, _, _, _ in labelled]
        found[term] = TermResult(
            n=len(labelled),
            sources=len(set(sources)),
            unseen=sum(one.words[term] not in known for one, _, known, _ in labelled),
            accuracy=mean_of(right, sources),
            usual=float(np.mean([one.words[term] == usual[term] for one, _, _, usual in labelled]))
            if labelled
            else 0.0,
            sure=int(sure.sum()),
            right=mean_of(right[sure], [source for source, is_sure in zip(sources, sure, strict=True) if is_sure]),
        )
    return found


def is_good_enough(found: Mapping[str, TermResult], *, sure: float) -> bool:
    """Whether confident predictions of region and type are right at least as often as the node claims."""
    ends = [found[term].right.low for term in ("region", "type")]
    return all(end is not None and end >= sure for end in ends)
