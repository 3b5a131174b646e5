"""A control chart as numbers for the script that draws it.

With one stratum the chart is in the unit of its quantity. With several it is in sigma from each stratum's own mean,
since their means differ; what a point measured is shown with it.
"""

from typing import Any

import numpy as np

from mediqa_node.domain.control_chart import D2, D4, RULES, SIGMAS, Limits
from mediqa_node.domain.envelope import MOST_POINTS, envelope
from mediqa_node.domain.trends import labels
from mediqa_node.storage.trend_charts import Analysis


class ControlFigure:
    """The figure of a chart for a period.

    Args:
        since, until: of the points shown, seconds since 1970; limits rest on all points of the chart.
    """

    def __init__(self, analysis: Analysis, *, since: float, until: float) -> None:
        self.analysis = analysis
        self.here = np.flatnonzero((analysis.points.at >= since) & (analysis.points.at < until))
        shown = np.unique(analysis.points.stratum[self.here]).tolist()
        judged = {stratum for _, stratum in analysis.judged.limits}
        self.stratum: int | None = shown[0] if len(shown) == 1 else None
        self.in_sigma = self.stratum is None and bool(judged)
        self.since, self.until = since, until

    def as_json(self) -> dict[str, Any]:
        """Return everything that is drawn."""
        chart = self.analysis.chart
        n = len(self.here)
        many = n > MOST_POINTS
        return {
            "title": chart.charted.title,
            "unit": "σ from each stratum's mean" if self.in_sigma else chart.charted.unit,
            "places": 1 if self.in_sigma else chart.charted.places,
            "n": n,
            "envelope": many,
            **(self._envelope() if many else self._points()),
            "marks": self._marks(),
            "limits": self._limits(),
            "bands": self._bands(),
            "phases": self._phases(),
            "range_limit": self._range_limit(),
        }

    # ── values in the unit of the chart ──────────────────────────────────────

    def _shown(self, value: float) -> float:
        return self.analysis.chart.charted.shown(value)

    def _y(self, indices: np.ndarray) -> np.ndarray:
        if self.in_sigma:
            return np.asarray(self.analysis.judged.z[indices])
        charted = self.analysis.chart.charted
        return np.asarray(charted.factor * self.analysis.points.value[indices] + charted.offset)

    def _from_z(self, z: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Return standardised values of the shown stratum in the unit of the chart."""
        if self.in_sigma or self.stratum is None:
            return z if self.in_sigma else np.full(len(z), np.nan)
        found = np.full(len(z), np.nan)
        for phase in np.unique(self.analysis.judged.phase[indices]).tolist():
            limits = self.analysis.judged.limits.get((phase, self.stratum))
            if limits is not None:
                same = self.analysis.judged.phase[indices] == phase
                scaled = limits.mean + limits.sigma * z[same]
                charted = self.analysis.chart.charted
                found[same] = charted.factor * (np.exp(scaled) if limits.logarithmic else scaled) + charted.offset
        return found

    # ── points ───────────────────────────────────────────────────────────────

    def _points(self) -> dict[str, Any]:
        judged, here = self.analysis.judged, self.here
        ewma, limit = judged.ewma[here], judged.ewma_limit[here]
        numbers = {number: place for place, number in enumerate(self.analysis.strata)}
        return {
            "t": self.analysis.points.at[here].tolist(),
            "y": _numbers(self._y(here)),
            "value": _numbers(self.analysis.chart.charted.factor * self.analysis.points.value[here]
                              + self.analysis.chart.charted.offset),
            "ewma": _numbers(self._from_z(ewma, here)),
            "ewma_low": _numbers(self._from_z(-limit, here)),
            "ewma_high": _numbers(self._from_z(limit, here)),
            "range": _numbers(judged.moving_range[here]),
            "series": self.analysis.points.series[here].tolist(),
            "stratum": [numbers[number] for number in self.analysis.points.stratum[here].tolist()],
            "strata": list(labels(self.analysis.strata).values()),
            "judged": judged.is_judged[here].astype(int).tolist(),
            "baseline": judged.in_baseline[here].astype(int).tolist(),
        }  # fmt: skip

    def _envelope(self) -> dict[str, Any]:
        judged = self.analysis.judged
        y = self._y(self.here)
        here, y = self.here[~np.isnan(y)], y[~np.isnan(y)]
        found = envelope(self.analysis.points.at[here], y)
        last = here[found.last]
        limit = judged.ewma_limit[last]
        moving = np.nan_to_num(judged.moving_range[here])
        start = found.last - found.n + 1
        return {
            "t": found.at.tolist(),
            "y": _numbers(found.median),
            "low": _numbers(found.low),
            "high": _numbers(found.high),
            "count": found.n.tolist(),
            "ewma": _numbers(self._from_z(judged.ewma[last], last)),
            "ewma_low": _numbers(self._from_z(-limit, last)),
            "ewma_high": _numbers(self._from_z(limit, last)),
            "range": _numbers(np.maximum.reduceat(moving, start)),
        }

    def _marks(self) -> list[dict[str, Any]]:
        """Return the points at which a rule was first broken; of a run the first one, so that marks stay few."""
        points, found = self.analysis.points, []
        inside = set(self.here.tolist())
        for signal in self.analysis.judged.signals:
            if signal.first not in inside:
                continue
            at = np.array([signal.first])
            y = self._from_z(self.analysis.judged.ewma[at], at) if signal.rule == "E" else self._y(at)
            found.append({
                "t": float(points.at[signal.first]),
                "y": _numbers(y)[0],
                "until": float(points.at[signal.last]),
                "n": signal.last - signal.first + 1,
                "rule": signal.rule.value,
                "words": RULES[signal.rule],
                "alarms": signal.alarms,
                "series": int(points.series[signal.first]),
            })  # fmt: skip
        return found

    # ── what they are compared with ──────────────────────────────────────────

    def _limits(self) -> list[dict[str, Any]]:
        found = []
        for phase, (since, until) in enumerate(self._spans()):
            limits = self._limits_of(phase)
            if limits is None or since >= self.until or until <= self.since:
                continue
            found.append({
                "from": max(since, self.since),
                "to": min(until, self.until),
                **limits,
                "provisional": self.analysis.judged.is_provisional[phase],
            })  # fmt: skip
        return found

    def _limits_of(self, phase: int) -> dict[str, Any] | None:
        of_phase = {s: one for (p, s), one in self.analysis.judged.limits.items() if p == phase}
        if self.in_sigma and of_phase:
            return {"low": -SIGMAS, "centre": 0.0, "high": SIGMAS, "n": sum(one.n for one in of_phase.values())}
        limits: Limits | None = of_phase.get(self.stratum) if self.stratum is not None else None
        if limits is None:
            return None
        low, centre, high = (self._shown(limits.at(z)) for z in (-SIGMAS, 0.0, SIGMAS))
        return {"low": low, "centre": centre, "high": high, "n": limits.n}

    def _spans(self) -> list[tuple[float, float]]:
        at = [start for start, _ in self.analysis.starts]
        return list(zip(at, [*at[1:], np.inf], strict=True))

    def _bands(self) -> list[dict[str, Any]]:
        """Return the period of each phase's baseline: as chosen; provisional ones as of the commonest stratum."""
        judged, at = self.analysis.judged, self.analysis.points.at
        found = []
        for phase, provisional in enumerate(judged.is_provisional):
            inside = judged.in_baseline & (judged.phase == phase)
            if inside.any() and provisional:
                strata = self.analysis.points.stratum[judged.phase == phase]
                inside &= self.analysis.points.stratum == np.bincount(strata).argmax()
            if inside.any():
                times = at[inside]
                found.append({"from": float(times.min()), "to": float(times.max()), "provisional": provisional})
        return found

    def _phases(self) -> list[dict[str, Any]]:
        starts = {at for at, _ in self.analysis.starts}
        found = [{"t": event.at, "label": event.kind.value, "note": event.note, "starts": event.at in starts}
                 for event in self.analysis.events]  # fmt: skip
        known = {event.at for event in self.analysis.events}
        found += [{"t": at, "label": f"other {why}", "note": "", "starts": True}
                  for at, why in self.analysis.starts[1:] if at not in known]  # fmt: skip
        return [one for one in found if self.since <= float(str(one["t"])) < self.until]

    @staticmethod
    def _range_limit() -> float:
        """Return the upper limit of a moving range in sigma."""
        return D4 * D2


def _numbers(values: np.ndarray) -> list[float | None]:
    """Return numbers for JSON, which has no NaN, with six figures."""
    return [None if np.isnan(value) else float(f"{value:.6g}") for value in values.tolist()]
