"""What a hospital and a network of a hundred need, by calculation from measured figures; and a queue, simulated."""

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MB = 0.526
"""Of a CT slice of 512 x 512."""
_PEAK_HOUR = 0.15
"""Share of a day's images that arrives in its busiest hour."""
_BUSY = 0.7
"""Share of its time that a worker may work in the busiest hour, so that a series seldom waits."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What `cost` and `queue` have measured: on PostgreSQL, series of 100 slices, one thread of CPU at a time."""

    receiver_cpu_ms_instance: float
    worker_cpu_s_series: float
    courier_cpu_s_series: float
    rows_series: float
    database_bytes_series: float
    syncs_instance: float
    service_s: float
    service_sd_s: float


@dataclass(frozen=True)
class Site:
    """What is sent in a day."""

    name: str
    series: int
    instances: int
    scored: int


HOSPITAL = Site("a hospital", series=960, instances=125_000, scored=720)
"""120 CT examinations (4 series of 200) and 60 MR (8 of 60) a day; one of two reconstructions of a CT is scored."""
NETWORK = Site("a network of 100", series=96_000, instances=12_500_000, scored=72_000)


def waits(rate: float, service_s: Sequence[float], servers: int, *, n: int, seed: int = 1) -> list[float]:
    """Simulate a queue with random arrivals; return how long each waits.

    Args:
        rate: arrivals a second.
        service_s: measured times, of which one is drawn for each arrival.
    """
    draw, now = random.Random(seed), 0.0
    free_at = [0.0] * servers
    found = []
    for _ in range(n):
        now += draw.expovariate(rate)
        begins = max(now, heapq.heappop(free_at))
        found.append(begins - now)
        heapq.heappush(free_at, begins + draw.choice(service_s))
    return found


def plan(figures: Figures) -> Iterator[str]:
    """Return what each site needs in its busiest hour and in a year, and what is short first."""
    yield "by calculation from the figures above"
    for site in (HOSPITAL, NETWORK):
        per_s = site.instances * _PEAK_HOUR / 3600
        scored_per_s = site.scored * _PEAK_HOUR / 3600
        workers = max(1, -(-scored_per_s * figures.service_s // _BUSY))
        yield f"{site.name}: {site.series:,} series a day, {site.scored:,} scored, {site.instances:,} instances"
        syncs = per_s * figures.syncs_instance
        yield f"  busiest hour: {per_s:.0f} instances/s, {per_s * MB:.0f} MB/s, {syncs:.0f} syncs/s"
        yield f"  receivers:    {per_s * figures.receiver_cpu_ms_instance / 1000:.2f} cores"
        wait = _wait(figures, scored_per_s, int(workers))
        yield f"  workers:      {workers:.0f} of the measured kind, at most {_BUSY:.0%} busy; {wait}"
        yield f"  courier:      {scored_per_s * figures.courier_cpu_s_series:.2f} cores, of one process"
        rows, size = site.series * figures.rows_series, site.series * figures.database_bytes_series
        yield f"  database:     {rows * 365 / 1e6:.0f} million rows and {size * 365 / 1e9:.0f} GB a year"
        yield f"  spool:        {site.instances * MB / 1e6:.2f} TB a day"


def _wait(figures: Figures, rate: float, workers: int) -> str:
    draw = random.Random(7)
    times = [max(0.05, draw.gauss(figures.service_s, figures.service_sd_s)) for _ in range(1000)]
    found = sorted(waits(rate, times, workers, n=50_000))
    return f"wait p90 {found[len(found) * 9 // 10]:.1f} s, simulated"
