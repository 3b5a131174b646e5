"""`mediqa-node constancy`: check the scores of the reference set, and list measurements of the site's phantoms."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mediqa_node import __version__
from mediqa_node.cli import app
from mediqa_node.cli.common import open_node, quiet, settings_of
from mediqa_node.cli.options import Json
from mediqa_node.cli.present import ago, as_json, date, fact, table
from mediqa_node.domain.errors import StorageFailed

if TYPE_CHECKING:
    from mediqa_node.config import Settings
    from mediqa_node.domain.constancy import Check
    from mediqa_node.storage.database import Database

_SHOWN_AT_MOST = 30
_SOURCES = {"card": "card", "first": "first check", "nothing": "(itself)"}


@app.command()
def constancy(
    context: typer.Context,
    history: Annotated[bool, typer.Option("--history", help="List recent checks instead of running one.")] = False,
    acknowledge: Annotated[
        str | None, typer.Option(metavar="NAME", help="Accept the drift of the last failed check; record this name.")
    ] = None,
    phantoms: Annotated[bool, typer.Option("--phantoms", help="List the measurements of the site's phantoms.")] = False,
    json: Json = False,
) -> None:
    """Check that the reference set still gets its pinned scores.

    The pinned scores are in the checkpoint's card. If the worker finds a drift, it withholds reports until the drift
    is accepted. The exit status is 1 on a drift.
    """
    if sum((history, acknowledge is not None, phantoms)) > 1:
        raise typer.BadParameter("choose one of --history, --acknowledge, --phantoms")
    if acknowledge is not None:
        _acknowledge(context, acknowledge, json=json)
    elif history:
        _history(context, json=json)
    elif phantoms:
        _phantoms(context, json=json)
    else:
        _check(context, json=json)


def _check(context: typer.Context, *, json: bool) -> None:
    from mediqa_node.composition import checkpoints
    from mediqa_node.domain.constancy import CheckedBy
    from mediqa_node.pipeline.checks.constancy import check
    from mediqa_node.storage import constancy_checks

    quiet("CRITICAL")  # the answer contains every error
    settings = settings_of(context)
    database, why_not = _recording(settings)
    assessor = checkpoints.open_active(settings)
    last_good_at = None
    if database is not None:
        with database.read() as connection:
            last_good_at = constancy_checks.last_good_at(connection)
    found = check(
        assessor,
        database,
        software_version=__version__,
        at=time.time(),
        made_by=CheckedBy.COMMAND,
        host_id=settings.node.host_id,
    )
    worker = standing = None
    if database is not None:
        with database.read() as connection:
            worker, standing = constancy_checks.last_of_worker(connection), constancy_checks.standing(connection)
        database.close()
    if json:
        as_json({**_plain(found), "recorded": database is not None})
        sys.exit(not found.passed)
    for name, text in (
        (_verdict(found), found.finding()),
        ("with", f"{assessor.scorer.checkpoint.name}, {found.identity.execution}, mediqa-node {__version__}"),
        ("recorded", why_not or "in the node's database"),
    ):
        fact(name, text)
    _print_series(found)
    if found.passed:
        _print_next(found, worker, standing)
    else:
        _print_consequence(found, worker, last_good_at)
    sys.exit(not found.passed)


def _recording(settings: Settings) -> tuple[Database | None, str | None]:
    """Open the node's database, or return why the check cannot be recorded."""
    from mediqa_node.composition import resources

    if (where := settings.missing_database) is not None:
        return None, f"no: there is no database at {where} yet"
    from mediqa_node.storage.migrate import mismatch

    database = resources.open_database(settings)
    try:
        if (text := mismatch(database)) is None:
            return database, None
        why = f"no: {text}"
    except StorageFailed as error:
        why = f"no: {error}"
    database.close()
    return None, why


def _verdict(found: Check) -> str:
    from mediqa_node.domain.constancy import Baseline

    if found.as_acknowledged:
        return "accepted"
    if found.passed:
        if found.compared_with != Baseline.NOTHING:
            return "steady"
        return "first check" if found.id is not None else "unproven"
    return "DRIFT" if found.problem is None else "FAILED"


def _print_series(found: Check) -> None:
    rows = []
    for name in sorted({*found.scores, *found.expected}):
        now, then = found.scores.get(name), found.expected.get(name)
        apart = now - then if now is not None and then is not None else None
        raw = (f"{value:.6f}" if value is not None else "–" for value in (then, now))
        rows.append((name, *raw, f"{apart:+.1e}" if apart is not None else "–"))
    if rows:
        source = _SOURCES.get(found.compared_with, found.compared_with)
        table(("reference", source, "now", "difference"), rows)


def _print_next(found: Check, worker: Check | None, standing: Check | None) -> None:
    """Print the next step after a good check of this process; only the worker's own checks decide about reports.

    Args:
        worker: the newest check of a worker.
        standing: the check that decides for the running node.
    """
    if found.as_acknowledged:
        typer.echo("this drift was accepted before; `mediqa-node constancy --history` shows by whom")
    if worker is None:
        typer.echo("→ mediqa-node serve: the worker makes its own check before its first report")
    elif standing is None or not standing.withholds:
        typer.echo("no report is withheld; the worker checks at every start and every day")
    elif worker.identity != found.identity:
        typer.echo(
            "→ restart the node: its worker runs with other software or weights (`--history`) and withholds reports"
        )
    else:
        typer.echo("→ mediqa-node retry: the worker checks again before the first report leaves")


def _print_consequence(found: Check, worker: Check | None, last_good_at: float | None) -> None:
    """Print what a failed check means for the running node."""
    if last_good_at is not None:
        typer.echo(f"the last good check was {ago(time.time() - last_good_at)}; scores since then are in doubt")
    if found.id is not None and worker is None:
        typer.echo("no worker has checked yet; it does at its start, and withholds reports if it finds the same")
    elif found.id is not None and found.problem is None and worker is not None and worker.identity == found.identity:
        typer.echo("reports of this node are withheld until the check passes or a person accepts the drift")
    elif found.id is not None:
        typer.echo("only the worker's own checks decide about reports: none is withheld because of this one")
    typer.echo(f"→ {found.advice()}")


def _acknowledge(context: typer.Context, name: str, *, json: bool) -> None:
    from mediqa_node.pipeline.checks.constancy import acknowledge as accept

    if not 1 <= len(name.strip()) <= 64:
        raise typer.BadParameter("must have 1 to 64 characters", param_hint="--acknowledge")
    quiet()
    with open_node(context) as (_, database):
        found = accept(database, name.strip(), at=time.time())
    if found is None:
        typer.echo(
            "no failed check of the running software and weights is open; `--history` lists all checks", err=True
        )
        sys.exit(2)
    if json:
        as_json({**_plain(found), "acknowledged_by": name.strip()})
        return
    identity = found.identity
    fact("accepted", f"check {found.id} of {date(found.checked_at)} by {name.strip()}: {found.finding()}")
    fact("for", f"mediqa-node {identity.software_version}, {identity.execution}, {identity.libraries}")
    typer.echo("→ mediqa-node retry")


def _history(context: typer.Context, *, json: bool) -> None:
    from mediqa_node.storage import constancy_checks

    with open_node(context) as (_, database), database.read() as connection:
        checks = constancy_checks.history(connection, at_most=_SHOWN_AT_MOST)
    if json:
        as_json([_plain(found) for found in checks])
        return
    if not checks:
        typer.echo("no check yet; `mediqa-node constancy` makes one, and the worker makes one every day")
        return
    table(
        ("check", "when", "by", "verdict", "drift", "bound", "version", "execution", "accepted"),
        [_history_cells(found) for found in checks],
    )
    for name, values in _changes(checks):
        typer.echo(f"{name}: {values}")
    if checks[0].withholds:
        typer.echo(f"→ {checks[0].advice()}")


def _history_cells(found: Check) -> tuple[str, ...]:
    accepted = f"{found.acknowledged_by}, {date(found.acknowledged_at)}" if found.acknowledged_at else ""
    return (
        str(found.id),
        date(found.checked_at),
        found.made_by,
        _verdict(found),
        "–" if found.drift is None else f"{found.drift:.1e}",
        f"{found.bound:.1e}",
        found.identity.software_version,
        found.identity.execution,
        accepted,
    )


def _changes(checks: Sequence[Check]) -> list[tuple[str, str]]:
    """Return which weights or libraries changed between the shown checks, newest first."""
    changes = []
    for newer, older in pairwise(checks):
        new, old = (_rests_on(found) for found in (newer, older))
        if new != old:
            change = f"{', '.join(sorted(old - new))} → {', '.join(sorted(new - old))}"
            changes.append((f"before check {newer.id}", change))
    return changes


def _rests_on(found: Check) -> set[str]:
    return {f"weights {found.identity.weights_sha256[:12]}", *found.identity.libraries.split(", ")}


def _phantoms(context: typer.Context, *, json: bool) -> None:
    from mediqa_node.storage import phantoms

    with open_node(context) as (settings, database), database.read() as connection:
        rows = phantoms.trend(connection)
    if json:
        as_json([asdict(row) for row in rows])
        return
    if not rows:
        known = ", ".join(rule.name for rule in settings.score.phantoms)
        typer.echo(f"nothing measured yet; rules in `score.phantoms`: {known or 'none'}")
    for (station_name, rule, modality), members in groupby(
        rows, key=lambda row: (row.station_name, row.rule, row.modality)
    ):
        unit = "HU" if modality == "CT" else "signal"
        typer.echo(f"{station_name or 'no station name'}: {rule}, {modality}")
        table(
            ("acquired", f"mean {unit}", f"noise {unit}", f"uniformity {'HU' if modality == 'CT' else '%'}"),
            [(row.acquired_at or "–", *(f"{v:.1f}" for v in (row.mean, row.noise, row.uniformity))) for row in members],
        )


def _plain(found: Check) -> dict[str, Any]:
    return {**asdict(found), "verdict": _verdict(found), "finding": found.finding(), "withholds": found.withholds}
