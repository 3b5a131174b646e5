"""From the ratings of a study to thresholds on the score, and their plot."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mediqa_node.domain.rating import Rating
from mediqa_node.domain.reading import Scale
from mediqa_node.image.verdict import ANY
from mediqa_node.reader_study.mos import score_table
from mediqa_node.reader_study.thresholds import Fit, NotFitted, OutOfReach, fit
from mediqa_node.storage.reading_results import ScoredSeries

_WIDE, _TALL = 720.0, 380.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 130.0, 16.0, 14.0, 44.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """Series with a score and a mean rating, of one scanner and protocol, by one checkpoint.

    Attributes:
        series: with the same place in `ratings`.
        ratings: mean over the readers, 0 worst to 1 best.
        n_readers: who rated any of them.
        n_other: series that were left out because another checkpoint scored them.
    """

    series: tuple[ScoredSeries, ...]
    ratings: tuple[float, ...]
    n_readers: int
    n_other: int

    @property
    def checkpoint(self) -> ScoredSeries:
        """A series that names weights, card and preprocessing."""
        return self.series[0]

    @property
    def scores(self) -> np.ndarray:
        """Scores, shape (n,), 0..1."""
        return np.array([one.score for one in self.series])


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a calibration may be made for: modality, scanners and protocols of the rated series."""

    modalities: tuple[str, ...]
    scanners: tuple[str, ...]
    protocols: tuple[str, ...]


def choices_of(scored: Sequence[ScoredSeries]) -> Choices:
    """Return the scopes of rated series, the most frequent modality first."""
    by_modality = Counter(one.modality for one in scored)
    return Choices(
        modalities=tuple(name for name, _ in by_modality.most_common()),
        scanners=tuple(sorted({one.scanner for one in scored if one.scanner})),
        protocols=tuple(sorted({one.protocol for one in scored if one.protocol})),
    )


def basis_of(
    ratings: Sequence[Rating], scored: Sequence[ScoredSeries], *, modality: str, scanner: str, protocol: str
) -> Basis:
    """Return the rated series of a scope.

    Args:
        ratings: of one study and criterion.
        scanner, protocol: names, or `*` for any.

    Raises:
        NotFitted: there is none, or untrained weights scored them.
    """
    inside = [
        one
        for one in scored
        if one.modality == modality and scanner in (one.scanner, ANY) and protocol in (one.protocol, ANY)
    ]
    if not ratings or not inside:
        raise NotFitted("no series of this scanner and protocol is rated in the study and scored")
    table = score_table(ratings)
    means = dict(zip(table.series, np.nanmean(table.scores, axis=1), strict=True))
    inside = [one for one in inside if one.series_instance_uid in means]
    made_with = Counter(one.made_with for one in inside).most_common(1)[0][0] if inside else None
    used = [one for one in inside if one.made_with == made_with]
    if used and not used[0].trained:
        raise NotFitted("these scores are of untrained weights and mean nothing")
    uids = {one.series_instance_uid for one in used}
    return Basis(
        series=tuple(used),
        ratings=tuple(float(means[one.series_instance_uid]) for one in used),
        n_readers=len({one.reader_id for one in ratings if one.series_instance_uid in uids}),
        n_other=len(inside) - len(used),
    )


def fitted(basis: Basis, patients: Mapping[str, str], scale: Scale, *, look: float, repeat: float) -> Fit:
    """Return the thresholds of two limits, which are values on the scale of the study.

    Raises:
        NotFitted: see `reader_study.thresholds.fit`, and for a limit that is not inside the scale.
    """
    for limit in (look, repeat):
        if not scale.low <= limit <= scale.high:
            raise NotFitted(f"{limit:g} is not on the scale, which goes from {scale.low} to {scale.high}")
    of = [patients[one.series_instance_uid] for one in basis.series]
    try:
        return fit(basis.scores, np.array(basis.ratings), of, look=scale.unit(look), repeat=scale.unit(repeat))
    except OutOfReach as error:
        limit, *ends = (scale.value(unit) for unit in (error.limit, error.low, error.high))
        raise NotFitted(
            f"no score stands for a mean rating of {limit:.3g}: from the lowest score to the highest, fitted mean "
            f"ratings go from {ends[0]:.2f} to {ends[1]:.2f}. Choose a limit between these, or add poorer or better "
            f"images to the study"
        ) from error


def kept(basis: Basis, found: Fit, scale: Scale, criterion: str, *, look: float, repeat: float) -> dict[str, Any]:
    """Return what is kept behind the thresholds: points, fit, scale and limits, as JSON."""
    return {
        "points": [[one.number, one.score, rating] for one, rating in zip(basis.series, basis.ratings, strict=True)],
        "fit": asdict(found),
        "scale": {"points": [list(point) for point in scale.points], "direction": scale.direction},
        "criterion": criterion,
        "limits": {"look": look, "repeat": repeat},
        "checkpoint": basis.checkpoint.checkpoint,
        "method": "centered isotonic regression (Oron and Flournoy 2017), bootstrap over patients",
    }


def plot(basis: Mapping[str, Any]) -> dict[str, Any]:
    """Return the coordinates of the plot: mean rating over score, with both limits and thresholds."""
    stored = basis["scale"]
    scale = Scale(points=tuple((v, label) for v, label in stored["points"]), direction=stored["direction"])
    found, limits = basis["fit"], basis["limits"]
    scores = [float(score) for _, score, _ in basis["points"]]
    ends = [*scores, *(float(found[name][end]) for name in ("look", "repeat") for end in ("low", "high"))]
    low, high = max(0.0, min(ends) - 0.03), min(1.0, max(ends) + 0.03)

    def x(score: float) -> float:
        return round(_LEFT + (score - low) / (high - low) * (_WIDE - _LEFT - _RIGHT), 1)

    def y(unit: float) -> float:
        return round(_TOP + (1 - unit) * (_TALL - _TOP - _BOTTOM), 1)

    def kind(score: float) -> str:
        return "repeat" if score < found["repeat"]["score"] else "look" if score < found["look"]["score"] else "fine"

    step = next(step for step in (0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 10)
    ticks = [i * step for i in range(int(1 / step) + 1) if low <= i * step <= high]
    return {
        "wide": _WIDE, "tall": _TALL, "left": _LEFT, "right": _WIDE - _RIGHT, "top": _TOP, "bottom": _TALL - _BOTTOM,
        "points": [(number, x(score), y(rating), kind(score)) for number, score, rating in basis["points"]],
        "curve": " ".join(f"{x(score)},{y(rating)}" for score, rating in found["curve"]),
        "limits": [
            (name, x(found[name]["score"]), x(found[name]["low"]), x(found[name]["high"]), y(found[name]["rating"]),
             found[name]["score"], limits[name])
            for name in ("look", "repeat")
        ],
        "rows": [(y(scale.unit(value)), value, label) for value, label in scale.points],
        "ticks": [(x(tick), f"{100 * tick:.0f}") for tick in ticks],
    }  # fmt: skip
