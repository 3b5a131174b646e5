"""The tables that turn header words into prompts, read from YAML mappings and fully checked.

A site edits copies of `config/prompts.yaml` and `config/kernels.yaml`. Any error in them is reported with key, value
and allowed values before any image is scored.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from mediqa_node.dicom.series_names import fold_accents
from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.prompt import MODALITIES, REGIONS, TYPES

_CT_TYPES = ("lung", "soft", "bone")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRule:
    """One rule of a site for its own protocols: name patterns and their meaning ("" if not stated)."""

    protocol: re.Pattern[str]
    series: re.Pattern[str] | None
    region: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRule:
    """A pattern and its type; physics overrides a `weak` one."""

    pattern: re.Pattern[str]
    type: str
    weak: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CombinedRule:
    """The region of a name with several; `from_mm` of the patient's length are needed to show more than one."""

    regions: frozenset[str]
    region: str
    from_mm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRule:
    """A display window, HU: limits of centre and width, infinite for null."""

    type: str
    center: tuple[float, float]
    width: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorKernels:
    """Kernel names of one vendor: patterns by type, in order, and the type of all others."""

    name: str
    manufacturer: re.Pattern[str]
    patterns: tuple[tuple[str, re.Pattern[str]], ...]
    otherwise: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRules:
    """All tables used to read prompts; see the comments in `config/prompts.yaml`."""

    sites: tuple[SiteRule, ...]
    region_codes: Mapping[str, str]
    region_image_types: Mapping[str, str]
    region_text: tuple[tuple[str, re.Pattern[str]], ...]
    combined: tuple[CombinedRule, ...]
    as_modality: Mapping[str, Mapping[str, str]]
    acquisition_contrast: Mapping[str, str]
    text_mr: tuple[TextRule, ...]
    text_ct: tuple[TextRule, ...]
    windows: tuple[WindowRule, ...]
    not_colour: re.Pattern[str]
    lung_regions: frozenset[str]
    vendors: tuple[VendorKernels, ...]

    @classmethod
    def from_mappings(cls, prompts: Mapping[str, Any], kernels: Mapping[str, Any]) -> "PromptRules":
        """Return the rules of two parsed YAML files.

        Raises:
            ConfigurationError: an unknown or missing key, a word outside the vocabularies, or a pattern
                that does not compile; the message names file, key, value and what is allowed.
        """
        root, sharp = _Node("prompts.yaml", "", prompts), _Node("kernels.yaml", "", kernels)
        root.only("site", "region", "type")
        sharp.only("lung_regions", "vendors")
        region, kind = root["region"], root["type"]
        region.only("codes", "image_types", "text", "combined", "as_modality")
        image_types = region.get("image_types")
        kind.only("acquisition_contrast", "text_mr", "text_ct", "windows", "not_colour")
        return cls(
            sites=tuple(_site(node) for node in root["site"].list()),
            region_codes={key: node.one_of(REGIONS) for key, node in region["codes"].pairs()},
            region_image_types=(
                {key: node.one_of(REGIONS) for key, node in image_types.pairs()} if image_types else {}
            ),
            region_text=tuple(
                (region["text"].key_of(key, REGIONS), node.any_word_pattern()) for key, node in region["text"].pairs()
            ),
            combined=tuple(_combined(node) for node in region["combined"].list()),
            as_modality={
                region["as_modality"].key_of(key, MODALITIES): {
                    node.key_of(name, REGIONS): value.one_of(REGIONS) for name, value in node.pairs()
                }
                for key, node in region["as_modality"].pairs()
            },
            acquisition_contrast={key: node.one_of(TYPES) for key, node in kind["acquisition_contrast"].pairs()},
            text_mr=tuple(_text_rule(node) for node in kind["text_mr"].list()),
            text_ct=tuple(_text_rule(node) for node in kind["text_ct"].list()),
            windows=tuple(_window(node) for node in kind["windows"].list()),
            not_colour=kind["not_colour"].pattern(),
            lung_regions=frozenset(node.one_of(REGIONS) for node in sharp["lung_regions"].list()),
            vendors=tuple(_vendor(key, node) for key, node in sharp["vendors"].pairs()),
        )

    def combination(self, named: frozenset[str], *, extent_mm: float = float("inf")) -> str | None:
        """Return the region that several in one name come to for a stack of this extent; None if that is open."""
        return next(
            (rule.region for rule in self.combined if rule.regions == named and extent_mm >= rule.from_mm), None
        )


@cache
def default_rules() -> PromptRules:
    """Return the rules shipped with the package, read once."""
    folder = resources.files("mediqa_config")
    read = (yaml.safe_load((folder / name).read_text("utf-8")) for name in ("prompts.yaml", "kernels.yaml"))
    return PromptRules.from_mappings(*read)


@dataclass(frozen=True, slots=True)
class _Node:
    """A value of a YAML file with its path, for error messages."""

    file: str
    path: str
    value: Any

    def wrong(self, allowed: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self.file}: key `{self.path or '(file)'}`: found {self.value!r}; allowed: {allowed}"
        )

    def _child(self, key: object, value: Any) -> "_Node":
        step = f"[{key}]" if isinstance(key, int) else f".{key}"
        return _Node(self.file, (self.path + step).lstrip("."), value)

    def __getitem__(self, key: str) -> "_Node":
        if not isinstance(self.value, Mapping):
            raise self.wrong("a mapping")
        if key not in self.value:
            raise self._child(key, None).wrong("this key is required")
        return self._child(key, self.value[key])

    def get(self, key: str) -> "_Node | None":
        return self[key] if key in self.value else None

    def only(self, *keys: str) -> None:
        if not isinstance(self.value, Mapping):
            raise self.wrong(f"a mapping with {', '.join(keys)}")
        for key in self.value:
            if key not in keys:
                raise self._child(key, self.value[key]).wrong(f"no such key; known are {', '.join(keys)}")

    def pairs(self) -> Iterator[tuple[str, "_Node"]]:
        if not isinstance(self.value, Mapping):
            raise self.wrong("a mapping")
        for key, value in self.value.items():
            yield str(key), self._child(key, value)

    def list(self) -> "Sequence[_Node]":
        if not isinstance(self.value, list | tuple):
            raise self.wrong("a list")
        return [self._child(index, value) for index, value in enumerate(self.value)]

    def one_of(self, words: Sequence[str]) -> str:
        if self.value not in words:
            raise self.wrong(", ".join(words))
        return str(self.value)

    def key_of(self, key: str, words: Sequence[str]) -> str:
        return _Node(self.file, f"{self.path}.{key}", key).one_of(words)

    def pattern(self) -> re.Pattern[str]:
        if not isinstance(self.value, str) or not self.value:
            raise self.wrong("a regular expression")
        try:
            return re.compile(self.value, re.I)
        except re.error as error:
            raise self.wrong(f"a regular expression ({error})") from error

    def any_pattern(self) -> re.Pattern[str]:
        """Return one pattern for a list of them; one that never matches for an empty list."""
        parts = [node.pattern().pattern for node in self.list()]
        return re.compile("|".join(f"(?:{part})" for part in parts) or r"(?!)", re.I)

    def any_word_pattern(self) -> re.Pattern[str]:
        """As `any_pattern`, for text without accents."""
        return re.compile(fold_accents(self.any_pattern().pattern), re.I)

    def limits(self) -> tuple[float, float]:
        low, high = self.list() if isinstance(self.value, list | tuple) and len(self.value) == 2 else (None, None)
        if low is None or high is None or any(not _is_limit(n.value) for n in (low, high)):
            raise self.wrong("[low, high] in HU, null for no limit")
        return (
            float("-inf") if low.value is None else float(low.value),
            float("inf") if high.value is None else float(high.value),
        )


def _is_limit(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _site(node: _Node) -> SiteRule:
    node.only("protocol", "series", "region", "type")
    series, region, kind = node.get("series"), node.get("region"), node.get("type")
    if region is None and kind is None:
        raise node.wrong("region, type or both beside protocol")
    return SiteRule(
        protocol=node["protocol"].pattern(),
        series=series.pattern() if series else None,
        region=region.one_of(REGIONS) if region else "",
        type=kind.one_of(TYPES) if kind else "",
    )


def _combined(node: _Node) -> CombinedRule:
    node.only("regions", "region", "from_mm")
    from_mm = node.get("from_mm")
    if from_mm is not None and (from_mm.value is None or not _is_limit(from_mm.value)):
        raise from_mm.wrong("a number of millimetres")
    return CombinedRule(
        regions=frozenset(part.one_of(REGIONS) for part in node["regions"].list()),
        region=node["region"].one_of(REGIONS),
        from_mm=float(from_mm.value) if from_mm else 0.0,
    )


def _text_rule(node: _Node) -> TextRule:
    node.only("pattern", "type", "weak")
    weak = node.get("weak")
    if weak is not None and not isinstance(weak.value, bool):
        raise weak.wrong("true, false")
    return TextRule(pattern=node["pattern"].pattern(), type=node["type"].one_of(TYPES), weak=bool(weak and weak.value))


def _window(node: _Node) -> WindowRule:
    node.only("type", "center", "width")
    return WindowRule(type=node["type"].one_of(_CT_TYPES), center=node["center"].limits(), width=node["width"].limits())


def _vendor(name: str, node: _Node) -> VendorKernels:
    node.only("manufacturer", *_CT_TYPES, "otherwise")
    return VendorKernels(
        name=name,
        manufacturer=node["manufacturer"].pattern(),
        patterns=tuple((kind, node[kind].any_pattern()) for kind in _CT_TYPES),
        otherwise=node["otherwise"].one_of((*_CT_TYPES, "unknown")),
    )
