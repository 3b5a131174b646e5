"""Exports that a page asks for: a preview from the database, and the export itself with its progress."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from mediqa_node.domain.commands import Command
from mediqa_node.domain.errors import MediqaError
from mediqa_node.domain.export import SPLITS, ExportRequest
from mediqa_node.exchange.splits import split_of
from mediqa_node.pipeline.export.export import export
from mediqa_node.pipeline.export.select import ExportSource
from mediqa_node.pipeline.heartbeat import goes_on
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.storage import commands, labels

_STEP = 0.01


class Interrupted(MediqaError):
    """The node is about to stop; whoever asked asks again."""

    retryable = True


@dataclass(frozen=True, slots=True)
class AskedExports:
    """Exports into folders of their own, named by the number of the action.

    Attributes:
        source: opened when one is asked for.
        folder: of all exports.
        stopping: whether the process is about to end.
    """

    source: Callable[[], ExportSource]
    folder: Path
    stopping: Callable[[], bool]

    def preview(self, node: NodeContext, command: Command) -> str:
        """Count the series that an export would take, by split, modality and scanner, as JSON.

        The counts rest on what the database knows: an export may leave out a few more, whose images it has to read,
        and it goes by Study Date (0008,0020) where this goes by the date of the acquisition.
        """
        request, pseudonyms = request_of(command), self.source().pseudonyms
        strata: dict[tuple[str, str], Counter[str]] = {}
        patients: dict[str, set[str]] = {split: set() for split in SPLITS}
        with node.database.read() as connection:
            known = labels.exportable(connection, modalities=request.modalities, eligible=request.eligible_only)
        for one in known:
            if not (request.takes_day(one.day) and request.takes_scanner(one.names)):
                continue
            key = pseudonyms.patient(
                {"PatientID": one.patient_id, "IssuerOfPatientID": one.issuer, "StudyInstanceUID": one.study}
            )
            split = split_of(key, pseudonyms)
            strata.setdefault((one.modality, one.scanner), Counter())[split] += 1
            patients[split].add(key)
        rows = [{"modality": m, "scanner": s, **dict(counts)} for (m, s), counts in sorted(strata.items())]
        return json.dumps({"strata": rows, "patients": {split: len(keys) for split, keys in patients.items()}})

    def export(self, node: NodeContext, command: Command) -> str:
        """Write the export, and return its numbers as JSON."""
        last = 0.0

        def advance(step: str, done: int, total: int) -> None:
            nonlocal last
            goes_on()
            if self.stopping():
                raise Interrupted("the node was stopped; ask again")
            share = (0.0 if step == "looking" else 0.5) + 0.5 * done / max(total, 1)
            if share >= last + _STEP:
                last = share
                with node.database.write() as connection:
                    commands.advance(connection, command.id, share)

        self.folder.mkdir(parents=True, exist_ok=True)
        found = export(self.source(), request_of(command), self.folder / f"asked-{command.id}", advance=advance)
        return json.dumps(found.as_dict() | {"folder": found.folder.name})


def request_of(command: Command) -> ExportRequest:
    """Return the request that an action's arguments describe."""
    given: dict[str, Any] = dict(command.arguments)
    days = {name: date.fromisoformat(given[name]) for name in ("since", "until") if given.get(name)}
    return ExportRequest(
        payload=given.get("payload", "refs"),
        modalities=tuple(given.get("modalities", ())),
        scanners=tuple(given.get("scanners", ())),
        eligible_only=bool(given.get("eligible_only", True)),
        faces=bool(given.get("faces", False)),
        **days,
    )
