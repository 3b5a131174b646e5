"""Check that this network equals the public code number for number, on generated weights and images.

Nothing from the release is needed: an integer hash fills every parameter and pixel identically on every machine, and a
file lists the scores that the public MedIQA and MANIQA code gives for them. The float64 check is the sensitive one:
LayerNorm with the wrong eps moves a float32 score by only 2e-7.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.model.checkpoint import fill
from mediqa_node.model.network import MedIQA
from mediqa_node.model.prompts import PROMPT_WIDTH
from mediqa_node.model.seeded import mix, uniform
from mediqa_node.model.sizes import SIZES

TOLERANCES = {torch.float64: 1e-9, torch.float32: 5e-6}
_EDGE = 224
_GOLDEN = np.uint32(0x9E3779B9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One image under one set of weights.

    Attributes:
        group: name of the set in the file.
        kind: `mediqa` or `maniqa`.
        salt: hash input for the weights.
        image: number of the image.
        prompt_index: the one of 64 inputs of the prompt that is 1; None for MANIQA.
        scale: of Swin layers.
        expected: score of the public code by type of arithmetic.
    """

    group: str
    kind: str
    salt: int
    image: int
    prompt_index: int | None
    scale: float
    expected: dict[torch.dtype, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One case in one arithmetic."""

    case: Case
    dtype: torch.dtype
    expected: float
    got: float

    @property
    def arithmetic(self) -> str:
        """`float64` or `float32`."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def difference(self) -> float:
        """Got less expected."""
        return self.got - self.expected

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance; NaN never is."""
        return abs(self.difference) <= TOLERANCES[self.dtype]


def read_cases(path: Path) -> tuple[Case, ...]:
    """Read every set of a parity file: an object that has a `salt` and lists of `mediqa` or `maniqa` cases.

    Raises:
        ConfigurationError: the file is missing, not JSON, or has no cases.
    """
    try:
        content = json.loads(path.read_bytes())
        groups = {name: raw for name, raw in content.items() if isinstance(raw, dict)}
        cases = [
            _case(name, kind, raw.get("salt"), one)
            for name, raw in groups.items()
            for kind in ("mediqa", "maniqa")
            for one in raw.get(kind, ())
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ConfigurationError(f"{path}: not a file of parity cases: {type(error).__name__}: {error}") from error
    if not cases:
        raise ConfigurationError(f"{path}: holds no set of parity cases (`salt` with `mediqa` or `maniqa`)")
    return tuple(cases)


def _case(group: str, kind: str, salt: object, raw: dict[str, Any]) -> Case:
    prompt_index = _whole(raw["prompt_index"]) if kind == "mediqa" else None
    if prompt_index is not None and not 0 <= prompt_index < PROMPT_WIDTH:
        raise ValueError(f"prompt_index {prompt_index}, must lie in 0..{PROMPT_WIDTH - 1}")
    return Case(
        group=group,
        kind=kind,
        salt=_whole(raw.get("salt", salt)),
        image=_whole(raw["image"]),
        prompt_index=prompt_index,
        scale=float(raw.get("swin_scale", 0.8)),
        expected={
            torch.float64: float(raw["score_fp64"]),
            torch.float32: float(raw.get("score_fp32", raw["score_fp64"])),
        },
    )


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is no whole number")
    return value


def run_cases(
    cases: Sequence[Case],
    *,
    dtypes: Sequence[torch.dtype] = (torch.float64, torch.float32),
    build: Callable[[Case], MedIQA] | None = None,
) -> Iterator[Outcome]:
    """Score every case in every arithmetic; consecutive cases that share weights fill them once.

    Args:
        build: builds the network of a case, to prove that a wrong network fails; None: `recipe_network`.
    """
    for _, group in groupby(cases, key=lambda case: (case.kind, case.salt, case.scale)):
        same_recipe = list(group)
        network = (build or recipe_network)(same_recipe[0])
        for dtype in dtypes:
            network.to(dtype)  # float32 values widened, never unrounded ones: float64 must come first
            for case in same_recipe:
                yield Outcome(case=case, dtype=dtype, expected=case.expected[dtype], got=score(network, case))


@torch.inference_mode()
def score(network: MedIQA, case: Case) -> float:
    """Return the raw score of the case's image under its prompt."""
    dtype = network.conv1.weight.dtype
    images = torch.from_numpy(recipe_image(case.image))[None].to(dtype)
    prompts = None if case.prompt_index is None else torch.eye(PROMPT_WIDTH, dtype=dtype)[case.prompt_index][None]
    return float(network(images, prompts).score)


def recipe_network(case: Case) -> MedIQA:
    """Return MedIQA or MANIQA at its released size with generated weights."""
    network = MedIQA(replace(SIZES["b8"], scale=case.scale), prompted=case.kind == "mediqa")
    own = {name: tuple(value.shape) for name, value in network.named_parameters() if "slice_weight" not in name}
    places = {name: place for place, name in enumerate(released_names(prompted=case.kind == "mediqa"))}
    state = {name: recipe_value(name, shape, places[name], case.salt) for name, shape in own.items()}
    fill(network, {name: torch.from_numpy(value) for name, value in state.items()})
    return network.eval()


@cache
def released_names(*, prompted: bool) -> tuple[str, ...]:
    """Return the names of all released parameters in byte order, those that no score depends on included."""
    with torch.device("meta"):
        alive = [name for name, _ in MedIQA(SIZES["b8"], prompted=prompted).named_parameters()]
    first = "vit.blocks.0."
    dead = [f"vit.blocks.{i}.{name.removeprefix(first)}" for i in (10, 11) for name in alive if name.startswith(first)]
    modules = ("vit.norm", "vit.head", "swintransformer1.downsample", "swintransformer2.downsample")
    dead += [f"{module}.{kind}" for module in modules for kind in ("weight", "bias")]
    return tuple(sorted([name for name in alive if not name.startswith("slice_weight.")] + dead))


def recipe_value(name: str, shape: tuple[int, ...], place: int, salt: int) -> np.ndarray:
    """Return one parameter: float32, computed in float64 from the position of its name and rounded once."""
    if name == "fc_score.3.bias":
        return np.full(shape, 2.0, dtype=np.float32)
    unit = uniform(place * 65537 + salt * 7919 + 1, int(np.prod(shape))).astype(np.float64).reshape(shape)
    if name.endswith("relative_position_bias_table"):
        unit *= 0.5
    elif name in ("vit.cls_token", "vit.pos_embed"):
        unit *= 0.25
    elif len(shape) == 1:
        unit = 1 + 0.25 * unit if name.endswith(".weight") else 0.125 * unit
    elif name not in ("MLP1.weight", "MLP2.weight"):
        unit *= _gain(name) * np.sqrt(3 / np.prod(shape[1:]))
    return unit.astype(np.float32)


def _gain(name: str) -> float:
    if name == "vit.patch_embed.proj.weight":
        return 4.0
    if name.startswith("tablock"):
        return 0.75 if ".c_v." in name else 0.375
    return 0.25 if name in ("conv1.weight", "conv2.weight") else 1.0


def recipe_image(number: int) -> np.ndarray:
    """Return image `number`: (3, 224, 224), 0..1, triangle waves under some hash noise; exact in float32."""
    c, y, x = np.meshgrid(np.arange(3), np.arange(_EDGE), np.arange(_EDGE), indexing="ij")

    def triangle(t: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs((t % 64) - 32) / 32)

    k = number
    smooth = 0.5 * triangle((k + 2) * x + 5 * y + 11 * c) + 0.5 * triangle(3 * x + (2 * k + 3) * y + 7 * c * k)
    counter = ((c * _EDGE + y) * _EDGE + x).astype(np.uint32)
    noise = (mix(counter * _GOLDEN + np.uint32((1000003 * (k + 1)) % 2**32)) >> np.uint32(20)) / 4096
    share = (k % 4) / 8
    return np.asarray((1 - share) * smooth + share * noise, dtype=np.float32)
