"""What an adapter of a public data set is, and what it says before anybody trains on it."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from training.data.dicom_rows import Left
from training.data.manifest import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A data set found on disk.

    Attributes:
        root: folder at which its layout begins.
        found: what gave it away.
        refusal: why it must not be used in this way; None if it may.
    """

    root: Path
    found: str
    refusal: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """How one data set becomes a manifest; the user brings the data.

    Attributes:
        name: for `--as`.
        licence: as its owner states it; the user has to keep it.
        polarity: what its labels mean and how they become 0..1, larger being better.
        expects: its layout in a line, for those whose folder is not recognised.
        probe: looks for the layout at a folder or one folder below; None if it is not there.
        records: yields a row a series or picture, and what is left out.
    """

    name: str
    licence: str
    polarity: str
    expects: str
    probe: Callable[[Path], Match | None]
    records: Callable[[Path], Iterator[Row | Left]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an adapter made of a folder; complete without anything being written.

    Attributes:
        left: how often for each reason; `missing` likewise, of labels without image and the reverse.
        labels: how many rows have each value of `mos`, `mas` or `tesla`, smallest first.
    """

    adapter: Adapter
    match: Match
    rows: tuple[Row, ...]
    left: dict[str, int]
    missing: dict[str, int]
    labels: dict[str, dict[float, int]]

    @property
    def patients(self) -> int:
        """How many groups the rows come from that no split may part."""
        return len({row.patient for row in self.rows})


def report(adapter: Adapter, match: Match, advance: Callable[[int], None] = lambda _: None) -> Report:
    """Read a data set as a whole.

    Args:
        advance: told how many records have been read.
    """
    rows: list[Row] = []
    left: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    for done, record in enumerate(adapter.records(match.root), start=1):
        if isinstance(record, Row):
            rows.append(record)
        else:
            (missing if record.missing else left)[record.reason] += 1
        advance(done)
    return Report(
        adapter=adapter, match=match, rows=tuple(rows), left=dict(left), missing=dict(missing), labels=_labels(rows)
    )


def _labels(rows: list[Row]) -> dict[str, dict[float, int]]:
    found: dict[str, Counter[float]] = {}
    for row in rows:
        if row.mos is not None:
            found.setdefault("mos", Counter())[round(row.mos, 2)] += 1
        if row.label_value is not None:
            found.setdefault(row.label_name, Counter())[round(row.label_value, 1)] += 1
    return {name: dict(sorted(counts.items())) for name, counts in found.items()}
