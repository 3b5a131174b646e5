"""The interface of adapters for public data sets, and the report on a data set."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from training.data.dicom_rows import Left
from training.data.manifest import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A data set found on disk.

    Attributes:
        root: top folder of its layout.
        found: the files by which it was recognised.
        refusal: why it must not be used; None if it may.
    """

    root: Path
    found: str
    refusal: str | None = None


class Adapter(Protocol):
    """A module that reads one data set into a manifest; the user supplies the data.

    Attributes:
        NAME: for `--as`.
        LICENCE: as stated by its owner; the user must comply with it.
        POLARITY: what its labels mean and how they become 0..1, larger being better.
        EXPECTS: one-line description of its layout, shown if a folder is not recognised.
    """

    NAME: str
    LICENCE: str
    POLARITY: str
    EXPECTS: str

    def probe(self, root: Path) -> Match | None:
        """Look for the layout in a folder or one folder below; None if it is not there."""

    def records(self, root: Path) -> Iterator[Row | Left]:
        """Yield a row for every series or picture, or the reason why it is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The rows of a data set and the counts of what was left out, before anything is written.

    Attributes:
        left: counts by reason; `missing`: the same for labels without an image and images without a label.
        labels: number of rows by value of `mos`, `mas` or `tesla`, smallest first.
    """

    adapter: Adapter
    match: Match
    rows: tuple[Row, ...]
    left: dict[str, int]
    missing: dict[str, int]
    labels: dict[str, dict[float, int]]

    @property
    def patients(self) -> int:
        """Number of patients or groups, which must not be divided between splits."""
        return len({row.patient for row in self.rows})


def report(adapter: Adapter, match: Match, advance: Callable[[int], None] = lambda _: None) -> Report:
    """Read a whole data set.

    Args:
        advance: called with the number of records read.
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
