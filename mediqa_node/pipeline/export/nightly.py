"""The nightly export: one folder per day, the newest kept, and its outcome for `mediqa-node status`."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, tzinfo
from pathlib import Path

import structlog

from mediqa_node.domain.errors import ConfigurationError, MediqaError
from mediqa_node.domain.export import ExportRequest
from mediqa_node.domain.policy import ExportRules
from mediqa_node.exchange.folder import MARK, clear, remove
from mediqa_node.exchange.object_store import copy_to_store
from mediqa_node.pipeline.export.export import export
from mediqa_node.pipeline.export.select import ExportSource

log = structlog.get_logger("courier")

_NOTE = ".last.json"
_DAYS = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"


class Interrupted(MediqaError):
    """The process is about to end; the next night exports all there is."""

    retryable = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of the last nightly export.

    Attributes:
        at: seconds since 1970.
        folder: the export, or None.
        problem: why there is none, or None.
    """

    at: float
    folder: str | None = None
    n_series: int = 0
    n_excluded: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NightlyExport:
    """The nightly export of the courier.

    Attributes:
        source: opened when it is due, so that a courier without exports reads no key.
        folder: of all exports.
        clock: seconds since 1970; its day in `time_zone` names the export.
    """

    source: Callable[[], ExportSource]
    rules: ExportRules
    folder: Path
    time_zone: tzinfo
    clock: Callable[[], float]

    def run(self, stopping: Callable[[], bool]) -> Outcome:
        """Export everything fit for training, delete the oldest exports, and record the outcome.

        Raises:
            Interrupted: `stopping` said so; no note is left.
            Exception: a fault of this program; the note names its kind alone, since its words may quote a header.
        """

        def advance(_what: str, _done: int, _total: int) -> None:
            if stopping():
                raise Interrupted("nightly export broken off: the process ends")

        now = self.clock()
        out = self.folder / datetime.fromtimestamp(now, self.time_zone).date().isoformat()
        try:
            self._clear()
            found = export(self.source(), ExportRequest(payload=self.rules.payload), out, replace=True, advance=advance)
            self._forget()
            if self.rules.store is not None:
                copy_to_store(out, self.rules.store, advance=lambda done, total: advance("copying", done, total))
        except Interrupted:
            raise
        except MediqaError as error:
            log.error("nightly export failed", reason=str(error))
            return self._note(Outcome(at=now, problem=str(error)))
        except Exception as error:
            self._note(Outcome(at=now, problem=f"{type(error).__name__}; the courier's log says more"))
            raise
        excluded = sum(found.reasons.values())
        return self._note(Outcome(at=now, folder=str(out), n_series=found.n_series, n_excluded=excluded))

    def _clear(self) -> None:
        """Remove what killed runs left: no later run writes to their folder."""
        for day in sorted({path.name[1:].rpartition(".")[0] for path in self.folder.glob(f".{_DAYS}.*")}):
            with suppress(ConfigurationError):  # another process is writing it
                clear(self.folder / day)

    def _forget(self) -> None:
        """Delete all but the exports made last, however a wrong clock named them; other files in the folder stay."""
        days = [day for day in self.folder.glob(_DAYS) if (day / MARK).is_file()]
        days.sort(key=lambda day: ((day / MARK).stat().st_mtime_ns, day.name))
        for day in days[: -self.rules.keep]:
            with suppress(ConfigurationError):
                remove(day)

    def _note(self, outcome: Outcome) -> Outcome:
        self.folder.mkdir(parents=True, exist_ok=True)
        half = self.folder / f"{_NOTE}.new"
        half.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
        half.replace(self.folder / _NOTE)
        return outcome


def last_outcome(folder: Path) -> Outcome | None:
    """Return the outcome of the last nightly export into a folder, or None before the first."""
    try:
        return Outcome(**json.loads((folder / _NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
