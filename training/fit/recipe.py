"""The configuration of a run: a YAML file for each stage, a section for each preset; unknown keys are refused."""

from dataclasses import replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.preprocessing import PreprocessSpec
from mediqa_node.model.card import DEFAULT_PREPROCESSING
from mediqa_node.model.sizes import SIZES

if TYPE_CHECKING:
    from training.fit.loop import Settings

STAGE1, STAGE2, SIMULATE = "stage1.yaml", "stage2.yaml", "simulate.yaml"
Model = TypeVar("Model", bound=BaseModel)


class Recipe(BaseModel):
    """One preset of one stage.

    Attributes:
        size: a row of `model.sizes`.
        slices, native_crops, native_at_most_px, sampled: see `PreprocessSpec`.
        batch: samples per step, over all processes.
        steps, epochs: length of the run; one of the two.
        severities: the parameter head also learns the severity of every simulated factor.
        prompts: False trains without them (the paper's Table 2).
        unknown: how often region and type are hidden.
        share: how often each modality is drawn; null: equally often.
        slices_at_once: slices per volume in one step; null: all.
        volumes: how often simulated slices of one stack form a volume.
        trunk_learning_rate: of the tuned part of a pretrained trunk (`sizes.Trunk.tuned`); null: the trunk is frozen,
            and every image passes it once.
        precision: of matrix products: `fp32`, or `bf16` on processors that support it (AMX, CUDA).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: str = "n16"
    slices: int = Field(default=7, ge=1)
    native_crops: int = Field(default=0, ge=0, le=3)
    native_at_most_px: int | None = None
    sampled: tuple[str, ...] = ()
    batch: int = Field(default=16, ge=1)
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    optimizer: str = Field(default="adamw", pattern="^(adam|adamw)$")
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    schedule: str = Field(default="cosine", pattern="^(cosine|constant)$")
    warmup: int = Field(default=50, ge=0)
    clip: float = Field(default=1.0, ge=0)
    severities: bool = False
    prompts: bool = True
    augment: bool = True
    unknown: float = Field(default=0.15, ge=0, le=1)
    slices_at_once: int | None = Field(default=None, ge=1)
    volumes: float = Field(default=0.0, ge=0, le=1)
    trunk_learning_rate: float | None = Field(default=None, gt=0)
    share: dict[str, float] | None = None
    save_every: int = Field(default=100, ge=1)
    threads: int = Field(default=1, ge=1)
    precision: str = Field(default="fp32", pattern="^(fp32|bf16)$")

    @property
    def spec(self) -> PreprocessSpec:
        """The preprocessing, which goes into the card."""
        return replace(
            DEFAULT_PREPROCESSING,
            size_px=SIZES[self.size].image_px,
            slices=self.slices,
            native_crops=self.native_crops,
            native_at_most_px=self.native_at_most_px,
            sampled=self.sampled,
        )

    @property
    def on_tokens(self) -> bool:
        """Whether the network trains on the tokens of a frozen trunk instead of images."""
        return SIZES[self.size].trunk is not None and self.trunk_learning_rate is None

    def settings(self, *, samples: int, seed: int, steps: int | None = None) -> "Settings":
        """Return the settings of the loop; epochs become steps."""
        from training.fit.loop import Settings  # imports torch, which `--help` does without

        wanted = steps or self.steps or max(1, round((self.epochs or 1) * samples / self.batch))
        return Settings(
            steps=wanted,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            trunk_learning_rate=self.trunk_learning_rate,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            warmup=min(self.warmup, wanted // 4),
            clip=self.clip,
            seed=seed,
            save_every=self.save_every,
            threads=self.threads,
            precision=self.precision,
        )


def read_recipe(name: str, preset: str, file: Path | None = None) -> Recipe:
    """Return a preset of a stage; see `read_preset`."""
    recipe = read_preset(Recipe, name, preset, file)
    if recipe.size not in SIZES:
        raise ConfigurationError(f"preset {preset}: size {recipe.size!r}; known: {', '.join(SIZES)}")
    return recipe


def read_preset(kind: type[Model], name: str, preset: str, file: Path | None = None) -> Model:
    """Return a preset of `config/<name>`, or of another file.

    Raises:
        ConfigurationError: no such file or preset, unknown keys, or invalid values.
    """
    path: Traversable = file or files("mediqa_config") / name
    try:
        presets = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(presets, dict):
            raise TypeError("no section for each preset")
        if preset not in presets:
            raise ConfigurationError(f"{path}: no preset {preset!r}; it has: {', '.join(presets)}")
        return kind.model_validate(presets[preset])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError) as error:
        raise ConfigurationError(f"{path}: not readable as YAML: {error}") from error
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ConfigurationError(f"{path}, preset {preset}: {found}") from error
