"""`mediqa-node constancy`: does the network still say of frozen images what it said; and the site's phantoms."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby, pairwise
from typing import Annotated, Any

import typer

from mediqa_node import __version__, logs
from mediqa_node.cli import app
from mediqa_node.cli.common import open_node, settings_of
from mediqa_node.cli.present import ago, table
from mediqa_node.composition import checkpoints, resources
from mediqa_node.config import Settings
from mediqa_node.domain.constancy import Baseline, Check, CheckedBy
from mediqa_node.domain.errors import StorageFailed
from mediqa_node.storage import constancy_checks, phantoms
from mediqa_node.storage.database import Database

_SHOWN_AT_MOST = 30
_SOURCES: dict[str, str] = {Baseline.CARD: "card", Baseline.FIRST: "first check", Baseline.NOTHING: "(itself)"}


@app.command()
def constancy(
    context: typer.Context,
    history: Annotated[bool, typer.Option("--history", help="The last checks; none is made.")] = False,
    acknowledge: Annotated[
        str | None, typer.Option(metavar="NAME", help="Accept the drift of the last failed check, in your name.")
    ] = None,
    phantoms: Annotated[bool, typer.Option("--phantoms", help="What was measured on the site's phantoms.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Score the reference set and hold it against the checkpoint's card.

    A drift withholds results until somebody acknowledges it. Exit status 1 on a drift.
    """
    if sum((history, acknowledge is not None, phantoms)) > 1:
        raise typer.BadParameter("choose one of --history, --acknowledge, --phantoms")
    if acknowledge is not None:
        _acknowledge(context, acknowledge, as_json=as_json)
    elif history:
        _history(context, as_json=as_json)
    elif phantoms:
        _phantoms(context, as_json=as_json)
    else:
        _check(context, as_json=as_json)


def _check(context: typer.Context, *, as_json: bool) -> None:
    from mediqa_node.pipeline.checks.constancy import check

    logs.configure(level="CRITICAL")  # the answer says it all
    settings = settings_of(context)
    database, why_not = _recording(settings)
    judge = checkpoints.open_active(settings)
    last_good_at = None
    if database is not None:
        with database.read() as connection:
            last_good_at = constancy_checks.last_good_at(connection)
    found = check(judge, database, software_version=__version__, at=time.time(), made_by=CheckedBy.COMMAND)
    worker = standing = None
    if database is not None:
        with database.read() as connection:
            worker, standing = constancy_checks.last_of_worker(connection), constancy_checks.standing(connection)
        database.close()
    if as_json:
        typer.echo(json.dumps({**_plain(found), "recorded": database is not None}, indent=2))
        sys.exit(not found.passed)
    for name, text in (
        (_verdict(found), found.finding()),
        ("with", f"{judge.scorer.checkpoint.name}, {found.identity.execution}, mediqa-node {__version__}"),
        ("recorded", why_not or "in the node's database"),
    ):
        typer.echo(f"{name:<12}{text}")
    _print_series(found)
    if found.passed:
        _print_next(found, worker, standing)
    else:
        _print_consequence(found, worker, last_good_at)
    sys.exit(not found.passed)


def _recording(settings: Settings) -> tuple[Database | None, str | None]:
    """Open the node's database, if it can hold a record; else say why the check is only shown."""
    if (where := settings.missing_database) is not None:
        return None, f"not: there is no database at {where} yet"
    from mediqa_node.storage.migrate import is_current

    database = resources.open_database(settings)
    try:
        if is_current(database):
            return database, None
        why = "not: the database is of an older version; `mediqa-node serve` brings it up to date"
    except StorageFailed as error:
        why = f"not: {error}"
    database.close()
    return None, why


def _verdict(found: Check) -> str:
    if found.as_acknowledged:
        return "accepted"
    if found.passed:
        return (
            "steady"
            if found.compared_with != Baseline.NOTHING
            else "first check"
            if found.id is not None
            else "unproven"
        )
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
    """Say what comes after a good check: it speaks for this process, and the worker has to speak for itself.

    Args:
        worker: the newest check of a worker.
        standing: the check that decides for the running node.
    """
    if found.as_acknowledged:
        typer.echo("this drift was acknowledged before; `mediqa-node constancy --history` says by whom")
    if worker is None:
        typer.echo("→ mediqa-node serve: its worker checks too, before its first result")
    elif standing is None or not standing.withholds:
        typer.echo("nothing is withheld for it; the worker checks at every start and every day")
    elif worker.identity != found.identity:
        typer.echo("→ start the node again: its worker runs with something else (`--history`), and withholds results")
    else:
        typer.echo("→ mediqa-node retry: the worker checks itself before the first result leaves")


def _print_consequence(found: Check, worker: Check | None, last_good_at: float | None) -> None:
    """Say what a check that failed means for the running node."""
    if last_good_at is not None:
        typer.echo(f"the last good check was {ago(time.time() - last_good_at)}; scores since then are in doubt")
    if found.id is not None and worker is None:
        typer.echo("no worker has checked here yet; it does at its start, and withholds results if it finds the same")
    elif found.id is not None and found.problem is None and worker is not None and worker.identity == found.identity:
        typer.echo("results of this node are withheld until it passes, or somebody accepts it")
    elif found.id is not None:
        typer.echo("the worker goes by its own checks: no result is withheld because of this one")
    typer.echo(f"→ {found.advice()}")


def _acknowledge(context: typer.Context, name: str, *, as_json: bool) -> None:
    from mediqa_node.pipeline.checks.constancy import acknowledge as accept

    if not 1 <= len(name.strip()) <= 64:
        raise typer.BadParameter("a name of 1 to 64 characters", param_hint="--acknowledge")
    logs.configure(level="ERROR")
    with open_node(context) as (_, database):
        found = accept(database, name.strip(), at=time.time())
    if found is None:
        typer.echo("no failed check of what the node runs with waits for anybody; `--history` lists them", err=True)
        sys.exit(2)
    if as_json:
        typer.echo(json.dumps({**_plain(found), "acknowledged_by": name.strip()}, indent=2))
        return
    identity = found.identity
    typer.echo(f"accepted    check {found.id} of {_date(found.checked_at)} by {name.strip()}: {found.finding()}")
    typer.echo(f"for         mediqa-node {identity.software_version}, {identity.execution}, {identity.libraries}")
    typer.echo("→ mediqa-node retry")


def _history(context: typer.Context, *, as_json: bool) -> None:
    with open_node(context) as (_, database), database.read() as connection:
        checks = constancy_checks.history(connection, at_most=_SHOWN_AT_MOST)
    if as_json:
        typer.echo(json.dumps([_plain(found) for found in checks], indent=2))
        return
    if not checks:
        typer.echo("no check yet; `mediqa-node constancy` makes one, and the worker does every day")
        return
    table(
        ("check", "when", "by", "verdict", "drift", "bound", "version", "execution", "acknowledged"),
        [_history_cells(found) for found in checks],
    )
    for name, values in _changes(checks):
        typer.echo(f"{name}: {values}")
    if checks[0].withholds:
        typer.echo(f"→ {checks[0].advice()}")


def _history_cells(found: Check) -> tuple[str, ...]:
    accepted = f"{found.acknowledged_by}, {_date(found.acknowledged_at)}" if found.acknowledged_at else ""
    return (
        str(found.id),
        _date(found.checked_at),
        found.made_by,
        _verdict(found),
        "–" if found.drift is None else f"{found.drift:.1e}",
        f"{found.bound:.1e}",
        found.identity.software_version,
        found.identity.execution,
        accepted,
    )


def _changes(checks: Sequence[Check]) -> list[tuple[str, str]]:
    """Say what changed between the shown checks, newest first: the usual culprits of a drift."""
    changes = []
    for newer, older in pairwise(checks):
        new, old = (_rests_on(found) for found in (newer, older))
        if new != old:
            told = f"{', '.join(sorted(old - new))} → {', '.join(sorted(new - old))}"
            changes.append((f"before check {newer.id}", told))
    return changes


def _rests_on(found: Check) -> set[str]:
    return {f"weights {found.identity.weights_sha256[:12]}", *found.identity.libraries.split(", ")}


def _phantoms(context: typer.Context, *, as_json: bool) -> None:
    with open_node(context) as (settings, database), database.read() as connection:
        rows = phantoms.trend(connection)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
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


def _date(at: float | None) -> str:
    return datetime.fromtimestamp(at or 0.0, UTC).strftime("%Y-%m-%d %H:%M UTC")
