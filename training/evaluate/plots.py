"""Plots of how the score follows each factor."""

from pathlib import Path

import numpy as np

from training.evaluate.by_method import QUALITY, SHIPPED, MethodPredictions
from training.simulate.degraded import FACTORS


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
