"""Plots of how the score follows each factor."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mediqa_node.image.preprocess import FULL_SCALE, intensity_range
from mediqa_node.model.card import DEFAULT_PREPROCESSING
from training.evaluate.by_method import QUALITY, SHIPPED, MethodPredictions
from training.evaluate.series import ScoredSeries
from training.simulate.degraded import FACTORS

_TILE_PX, _TEXT_PX, _ACROSS = 180, 42, 8


def draw_sweeps(predictions: MethodPredictions, modality: str, file: Path) -> None:
    """Plot the shipped score over the measured severity of each factor, one line per image."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    factors = FACTORS[modality]
    predicted = predictions.values[QUALITY][SHIPPED]
    figure, axes = plt.subplots(
        1, len(factors), figsize=(3.1 * len(factors), 3.2), sharey=True, layout="constrained", squeeze=False
    )
    sources = sorted({sample.source for sample in predictions.data.samples})
    colours = dict(zip(sources, plt.get_cmap("tab10").colors, strict=False))  # type: ignore[attr-defined]
    for axis, factor in zip(axes[0], factors, strict=True):
        lines: dict[str, list[tuple[float, float, str]]] = {}
        for place, sample in enumerate(predictions.data.samples):
            if sample.factor in (factor, "clean"):
                point = (sample.severities[factor], float(predicted[place]), sample.source)
                lines.setdefault(sample.base, []).append(point)
        for points in lines.values():
            line = np.array([(x, y) for x, y, _ in sorted(points)])
            axis.plot(line[:, 0], line[:, 1], marker=".", linewidth=0.8, color=colours[points[0][2]], alpha=0.7)
        axis.set(title=factor, xlabel="measured severity")
    axes[0][0].set_ylabel(f"{modality}: score as shipped")
    for source in sources:
        axes[0][-1].plot([], [], color=colours[source], label=source)
    figure.legend(loc="outside lower center", ncols=len(sources), fontsize=8, frameon=False)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def draw_series(found: Sequence[ScoredSeries], file: Path) -> None:
    """Draw a contact sheet: the middle slice of each series with its score, own quality, region and type."""
    rows = -(-len(found) // _ACROSS)
    sheet = Image.new("RGB", (_ACROSS * _TILE_PX, rows * (_TILE_PX + _TEXT_PX)), "black")
    draw = ImageDraw.Draw(sheet)
    for place, one in enumerate(found):
        left, top = (place % _ACROSS) * _TILE_PX, (place // _ACROSS) * (_TILE_PX + _TEXT_PX)
        picture = Image.fromarray(_shown(one)).convert("RGB")
        picture.thumbnail((_TILE_PX - 4, _TILE_PX - 4))
        sheet.paste(picture, (left, top))
        draw.text((left, top + _TILE_PX), one.name[:29], fill="white")
        colour = "white" if one.holds else "orange"
        draw.text((left, top + _TILE_PX + 13), f"score {one.score:.2f}  own {one.quality:.2f}", fill=colour)
        outside = "  OUTSIDE" * (one.outside is not None)
        draw.text((left, top + _TILE_PX + 26), f"{one.region} {one.type}{outside}", fill="gray")
    sheet.save(file)


def _shown(one: ScoredSeries) -> np.ndarray:
    """Return the image of a series in the window that the network gets, uint8."""
    low, high = 0.0, FULL_SCALE
    if one.image.ndim == 2:
        low, high = intensity_range([one.image], DEFAULT_PREPROCESSING.rule_for(one.modality, one.type))
    scaled = np.clip((one.image - low) / max(high - low, 1e-6), 0, 1)
    return np.asarray(FULL_SCALE * scaled).astype(np.uint8)
