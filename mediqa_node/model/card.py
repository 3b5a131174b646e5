"""The card of a checkpoint: everything except the weights that a score depends on, and what may be claimed for it.

The node follows the card or refuses it; none of these values can be set in the node's configuration.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from mediqa_node.domain.constancy import Constancy
from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.domain.preprocessing import IntensityRule, PreprocessSpec
from mediqa_node.domain.prompt import MODALITIES
from mediqa_node.domain.scoring import Prediction
from mediqa_node.image.measure.quality_statistics import VERSION
from mediqa_node.image.training_range import TrainingRange
from mediqa_node.model.card_training_range import is_number, read_training_ranges, require
from mediqa_node.model.prompts import FOUR_ONE_HOTS, KNOWN, PROMPT_WIDTH, TERMS, PromptCode
from mediqa_node.model.sizes import SIZES, Size

FORMAT = 1
PARAMETERS = ("mas", "tesla", "blur")
"""Parameters that a head may predict; reports contain the first two (`Prediction`)."""

DEFAULT_PREPROCESSING = PreprocessSpec(
    size_px=224,
    slices=7,
    intensity={
        "CT": IntensityRule(kind="window", low=-160.0, high=240.0),
        "CT/lung": IntensityRule(kind="window", low=-1350.0, high=150.0),
        "CT/soft": IntensityRule(kind="window", low=-160.0, high=240.0),
        "CT/bone": IntensityRule(kind="window", low=-450.0, high=1050.0),
        "MR": IntensityRule(kind="percentile", low=0.5, high=99.5),
        "OP": IntensityRule(kind="window", low=0.0, high=255.0),
    },
)
"""What new checkpoints are trained with: HU for CT, percent for MR, 8-bit values for fundus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityMap:
    """A monotone map of the network's unbounded score to 0..1.

    Attributes:
        kind: `logistic`: 1 / (1 + exp(-b (x - a))); `clamp`: (x - a) / (b - a), clipped to 0..1.
        a, b: midpoint and steepness, or the scores that become 0 and 1.
    """

    kind: str
    a: float
    b: float

    def beyond(self, raw: np.ndarray) -> int:
        """Return how many raw scores are outside the scale and are clamped to its ends."""
        return int(((raw < self.a) | (raw > self.b)).sum()) if self.kind == "clamp" else 0

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Map raw scores, any shape, to float64 in 0..1."""
        x = np.asarray(raw, dtype=np.float64)
        if self.kind == "logistic":
            return np.asarray(1.0 / (1.0 + np.exp(-np.clip(self.b * (x - self.a), -700.0, 700.0))))
        return np.asarray(np.clip((x - self.a) / (self.b - self.a), 0.0, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """The weights that the encoder began from, before any image of this package was seen.

    Attributes:
        network: name of the architecture in timm.
        weights: file, or package and file.
        sha256: of that file.
        licence: of the weights; "" if not given.
        trained_on: images that they were trained on; "" if not given.
    """

    network: str
    weights: str
    sha256: str
    licence: str = ""
    trained_on: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedParameter:
    """One output of the parameter head.

    Attributes:
        name: `mas` or `tesla`.
        unit: UCUM.
        modality: it is predicted for series of this modality only.
        scale: `linear`, or `log`: the network predicts the natural logarithm.
        mean, sd: the network predicts standard units: its output times `sd` plus `mean` is the (logarithm of the)
            parameter.
        lowest, highest: of the labels of the training samples, in `unit`; None: unknown.
        held_out_rmse: root mean square error of the (logarithm of the) parameter on held-out sources; None: unknown.
    """

    name: str
    unit: str
    modality: str
    scale: str = "linear"
    mean: float = 0.0
    sd: float = 1.0
    lowest: float | None = None
    highest: float | None = None
    held_out_rmse: float | None = None

    def prediction(self, output: float) -> Prediction:
        """Return the parameter in its unit from the network's output."""
        value, rmse = output * self.sd + self.mean, self.held_out_rmse
        return Prediction(
            name=self.name,
            value=self._in_unit(value),
            unit=self.unit,
            learned=None if self.lowest is None or self.highest is None else (self.lowest, self.highest),
            likely=None if rmse is None else (self._in_unit(value - rmse), self._in_unit(value + rmse)),
        )

    def _in_unit(self, value: float) -> float:
        return float(np.exp(value)) if self.scale == "log" else float(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """How network and statistics are combined: offset + network x n + statistics x s.

    Attributes:
        network, statistics: the shares; not negative, not both 0.
    """

    offset: float
    network: float
    statistics: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """See module.

    Attributes:
        size: a row of `sizes.SIZES`.
        trained: False for seeded weights, which give meaningless scores.
        weights_sha256: of the safetensors file.
        prompt: how prompts are encoded; None for MANIQA, which has none.
        quality: map of raw scores to 0..1; None: only raw scores are given.
        scale: of Swin layers, if the weights need another one than their row of SIZES has (MANIQA on PIPAL22).
        constancy: pinned scores of the reference set; None: a site's first check becomes the baseline.
        fusion: by modality, of `quality` and of parameters: shares of the network and of the regressor on statistics
            (`statistics_regressor`); {} if the network is used alone.
        statistics_version: of the statistics that regressors use (`image.measure.quality_statistics`).
        claims: evidence for the score, by modality, in ASCII; repeated in reports. {}: no claim.
        domains: training range by modality; a modality without one is always scored.
        pretrained: weights that the encoder began from; None: from none.
        training_data, metrics: for people; shown, never computed with.
    """

    name: str
    size: str
    trained: bool
    weights_sha256: str
    preprocess: PreprocessSpec = DEFAULT_PREPROCESSING
    prompt: PromptCode | None = FOUR_ONE_HOTS
    quality: QualityMap | None
    scale: float | None = None
    parameters: tuple[PredictedParameter, ...] = ()
    constancy: Constancy | None = None
    fusion: Mapping[str, Mapping[str, Fusion]] = field(default_factory=dict)
    statistics_version: int | None = None
    claims: Mapping[str, str] = field(default_factory=dict)
    domains: Mapping[str, TrainingRange] = field(default_factory=dict)
    pretrained: Pretrained | None = None
    training_data: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def network_size(self) -> Size:
        """The row of SIZES, with the scale that these weights need."""
        size = SIZES[self.size]
        return size if self.scale is None else replace(size, scale=self.scale)

    def to_json(self) -> bytes:
        """Return the card's file: UTF-8, sorted, one value per line."""
        content = asdict(self) | {"format": FORMAT}
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def missing_evidence(card: Card) -> tuple[str, ...]:
    """Return the evidence that a card still lacks before its checkpoint should report; () if complete.

    Each entry names the evidence and the command that provides it.
    """
    evidence = {
        "claims (`mediqa-train evaluate --sweep`, then `mediqa-train claim`)": card.claims,
        "a training range (`mediqa-train domain`, then `mediqa-train card --domains`)": card.domains,
        "reference scores (`mediqa-node model pin`)": card.constancy,
    }
    return tuple(name for name, found in evidence.items() if not found)


def read_card(content: bytes) -> Card:
    """Read a card and check that this version supports all of it.

    Raises:
        CheckpointRefused: not JSON, a field missing, unknown or out of range.
    """
    try:
        raw = json.loads(content)
        version = raw.pop("format", None)
        if version != FORMAT:
            raise ValueError(f"card format {version!r}; this version reads {FORMAT}")
        card = Card(
            **raw
            | {
                "preprocess": _preprocess(raw["preprocess"]),
                "prompt": _prompt(raw["prompt"]) if raw["prompt"] is not None else None,
                "quality": QualityMap(**raw["quality"]) if raw["quality"] is not None else None,
                "parameters": tuple(PredictedParameter(**entry) for entry in raw["parameters"]),
                "domains": read_training_ranges(raw.get("domains", {}), _preprocess(raw["preprocess"])),
                "fusion": {
                    modality: {output: Fusion(**entry) for output, entry in outputs.items()}
                    for modality, outputs in raw.get("fusion", {}).items()
                },
                "pretrained": Pretrained(**raw["pretrained"]) if raw.get("pretrained") is not None else None,
                "constancy": Constancy(**raw["constancy"]) if raw.get("constancy") is not None else None,
            }
        )
        _check(card)
    except KeyError as error:
        raise CheckpointRefused(f"checkpoint card lacks {error}; write it again with this version") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointRefused(f"checkpoint card cannot be honoured: {error}") from error
    return card


def _preprocess(raw: Mapping[str, Any]) -> PreprocessSpec:
    rules = {
        key: IntensityRule(**{**rule, "low": float(rule["low"]), "high": float(rule["high"])})
        for key, rule in raw["intensity"].items()
    }
    low, high = map(float, raw.get("output_range", (0.0, 1.0)))  # 0 and 0.0 must have one fingerprint
    given = {"intensity": rules, "output_range": (low, high), "sampled": tuple(raw.get("sampled", ()))}
    return PreprocessSpec(**{**raw, **given})


def _prompt(raw: Mapping[str, Any]) -> PromptCode:
    return PromptCode(words={term: tuple(words) for term, words in raw["words"].items()}, index=raw.get("index"))


def _check(card: Card) -> None:
    """Raise ValueError for a value that parses but is not valid in a card."""
    _one_of("size", card.size, SIZES)
    require(type(card.trained) is bool, "trained must be true or false")
    require(card.scale is None or 0 < card.scale <= 1, f"scale {card.scale!r}")
    size = card.network_size
    _check_preprocess(card.preprocess, size)
    if card.quality is not None:
        _one_of("quality kind", card.quality.kind, ("logistic", "clamp"))
        require(is_number(card.quality.a) and is_number(card.quality.b), "quality map is not finite")
        falling = card.quality.b <= (0 if card.quality.kind == "logistic" else card.quality.a)
        require(not falling, "quality map does not rise")
    for parameter in card.parameters:
        _one_of("parameter", parameter.name, PARAMETERS)
        _one_of("parameter scale", parameter.scale, ("linear", "log"))
        _one_of("parameter unit", parameter.unit, ("mA.s", "T", "{0:1}", "{pixels}"))
        known = [one for one in (parameter.lowest, parameter.highest, parameter.held_out_rmse) if one is not None]
        require(all(map(is_number, known)), f"{parameter.name}: lowest, highest and held_out_rmse are {known}")
        require((parameter.held_out_rmse or 0) >= 0, f"{parameter.name}: held_out_rmse {parameter.held_out_rmse}")
    _check_fusion(card)
    for modality, claim in card.claims.items():
        _one_of("modality of a claim", modality, MODALITIES)
        require(isinstance(claim, str) and claim.isascii(), f"claim of {modality}: must be ASCII text")
    if card.prompt is not None:
        _check_prompt(card.prompt, size.tab)
    if card.constancy is not None:
        _check_constancy(card.constancy)


def _check_preprocess(spec: PreprocessSpec, size: Size) -> None:
    require(spec.size_px == size.image_px, f"preprocess size_px {spec.size_px}, but {size.name} reads {size.image_px}")
    require(type(spec.slices) is int and spec.slices >= 1, f"preprocess slices {spec.slices!r}")
    crops = spec.native_crops
    require(type(crops) is int and crops in range(4), f"preprocess native_crops {crops!r}, must be 0 to 3")
    at_most = spec.native_at_most_px
    require(at_most is None or (type(at_most) is int and at_most >= size.image_px), f"native_at_most_px {at_most!r}")
    _one_of("preprocess slice_rule", spec.slice_rule, ("regions", "released"))
    _one_of("preprocess geometry", spec.geometry, ("square", "stretch"))
    _one_of("preprocess colour_order", spec.colour_order, ("rgb", "bgr"))
    require(spec.output_range in ((0, 1), (-1, 1)), f"preprocess output_range {spec.output_range!r}")
    fixed = size.channels != ("rgb",) or size.trunk is not None
    require(not fixed or spec.output_range == (0, 1), f"{size.name} reads images in 0..1")
    kinds = {rule.kind for rule in spec.intensity.values()}
    for key, rule in spec.intensity.items():
        _one_of(f"intensity rule of {key}", rule.kind, ("window", "percentile", "dtype_range"))
        require(rule.low < rule.high, f"intensity rule of {key}: low {rule.low} is not below high {rule.high}")
    released = spec.geometry == "stretch"
    require(
        "dtype_range" not in kinds or kinds == {"dtype_range"},
        "dtype_range cannot be combined with other intensity rules",
    )
    require(("dtype_range" in kinds) == released, "dtype_range and geometry stretch belong together")
    require(not (released and spec.native_crops), "geometry stretch knows no native crops")
    for modality in spec.sampled:
        _one_of("preprocess sampled", modality, MODALITIES)
    require(not (released and spec.sampled), "geometry stretch samples nothing")


def _check_fusion(card: Card) -> None:
    require(
        not card.fusion or card.statistics_version == VERSION,
        f"statistics of version {card.statistics_version!r}; this version measures {VERSION}",
    )
    for modality, outputs in card.fusion.items():
        _one_of("modality of a fusion", modality, MODALITIES)
        known = ("quality", *(one.name for one in card.parameters if one.modality == modality))
        for output, entry in outputs.items():
            _one_of(f"output of a fusion of {modality}", output, known)
            numbers = (entry.offset, entry.network, entry.statistics)
            require(all(is_number(one) for one in numbers), f"fusion of {modality}, {output}: {numbers}")
            counts = min(entry.network, entry.statistics) >= 0 < entry.network + entry.statistics
            require(counts, f"fusion of {modality}, {output}: shares {entry.network}, {entry.statistics}")


def _check_prompt(code: PromptCode, tab: str) -> None:
    if code.index is not None:
        require(0 <= code.index < PROMPT_WIDTH, f"prompt index {code.index}, must lie in 0..{PROMPT_WIDTH - 1}")
        return
    require(tab != "released", "released weights were not trained with prompt words; give a fixed prompt index")
    require(set(code.words) == set(TERMS), f"prompt words for {sorted(code.words)}, expected {sorted(TERMS)}")
    for term in TERMS:
        for word in code.words[term]:
            _one_of(f"prompt word of {term}", word, KNOWN[term])
    require(sum(map(len, code.words.values())) <= PROMPT_WIDTH, f"more than {PROMPT_WIDTH} prompt words")


def _check_constancy(pinned: Constancy) -> None:
    require(bool(pinned.raw), "constancy pins no reference series")
    for name, value in pinned.raw.items():
        require(is_number(value), f"constancy of {name}: {value!r}")
    for name in ("bound", "bound_bf16"):
        value = getattr(pinned, name)
        require(is_number(value) and value > 0, f"constancy {name} {value!r}")


def _one_of(what: str, value: object, allowed: Mapping[str, object] | Sequence[str]) -> None:
    require(value in allowed, f"unknown {what} {value!r}; known: {', '.join(allowed)}")
