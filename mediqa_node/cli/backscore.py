"""`mediqa-node backscore`: score an archive that the node already holds, behind all other work."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import open_node, quiet
from mediqa_node.cli.dates import day
from mediqa_node.cli.options import Commands, Json
from mediqa_node.cli.present import as_json, count, date, fact, table
from mediqa_node.cli.progress import progress
from mediqa_node.domain.health import span

if TYPE_CHECKING:
    from collections.abc import Callable

    from mediqa_node.domain.backscore import BackscoreSet, Progress, Selection
    from mediqa_node.storage.database import Connection, Database

backscore_app = typer.Typer(
    cls=Commands,
    help="Score series that the node already holds.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(backscore_app, name="backscore")

_LOOK_EVERY_S = 2.0
Id = Annotated[int, typer.Argument(metavar="ID", help="Number of the set, as `backscore list` shows it.")]


@backscore_app.command()
def start(
    context: typer.Context,
    since: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="First day of acquisition.")] = "",
    until: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="Last day of acquisition.")] = "",
    modality: Annotated[str, typer.Option(metavar="MODALITY", help="CT, MR or OP. The default is all.")] = "",
    station: Annotated[str, typer.Option(metavar="NAME", help="Scanner, as `series` shows it.")] = "",
    calling_ae: Annotated[str, typer.Option("--calling-ae", metavar="AE", help="AE title that sent the series.")] = "",
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Number of series at most.")] = None,
    with_score: Annotated[
        bool, typer.Option("--all", help="Also series that have a score of the active checkpoint.")
    ] = False,
    with_reports: Annotated[bool, typer.Option("--reports", help="Report the scores, by `returns`.")] = False,
    by: Annotated[str, typer.Option(metavar="NAME", help="Who starts it. Not needed with --dry-run.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the series, and start nothing.")] = False,
    json: Json = False,
) -> None:
    """Score the series of an archive with the active checkpoint.

    Selected is every series whose images are still in the spool, whatever its age, pulled or not, unless it is being
    received or assessed, was rejected, or shows no patient (a localizer, a phantom, a document). The default is those
    without a score of the active checkpoint. A series without a date of acquisition counts by its day of reception.
    `score.rules`, `score.primary` and `score.phantoms` hold as they are now; `score.max_age_days` does not.

    No report is sent or changed. The score becomes the series' own if no report of it exists (state "assessed", reason
    "back-scored, not reported"). If one does, or the series is withheld or parked, the score is kept alongside, and the
    series stays as it is. With --reports every score is a new revision and is reported as that of a live series.

    Series that arrive or were pulled go first. The set is for the checkpoint that is active now, and pauses as soon as
    another one is.
    """
    from mediqa_node.composition import checkpoints
    from mediqa_node.domain.backscore import Selection
    from mediqa_node.storage import backscore_selection, backscores, promotions

    if not by.strip() and not dry_run:
        raise typer.BadParameter("name who starts it", param_hint="--by")
    first, last = day(since, "--since"), day(until, "--until")
    if first is not None and last is not None and last < first:
        raise typer.BadParameter("must not be before --since", param_hint="--until")
    selection = Selection(
        since=date(first)[:10] if first is not None else "",
        until=date(last)[:10] if last is not None else "",
        modality=modality.upper(),
        station=station,
        calling_ae=calling_ae,
        with_score=with_score,
        at_most=limit,
    )
    quiet()
    with open_node(context) as (settings, database):
        with progress("counting"), database.read() as connection:
            weights = checkpoints.active_weights(settings, promotions.standing(connection))
            now = time.time()
            total = backscore_selection.count(connection, selection, weights, before=now)
        number = None
        if total and not dry_run:
            with database.write() as connection:
                number = backscores.add(
                    connection,
                    selection,
                    weights,
                    with_reports=with_reports,
                    total=total,
                    by=by.strip(),
                    at=now,
                )
    if json:
        as_json({"id": number, "total": total, "weights": asdict(weights)})
    elif number is None:
        typer.echo(f"{count(total, 'series', 'series')} to score with {weights.label}; nothing was started")
    else:
        typer.echo(f"set {number}: {count(total, 'series', 'series')} to score with {weights.label}")
        typer.echo(f"→ mediqa-node backscore show {number} --follow")


@backscore_app.command("list")
def list_sets(context: typer.Context, json: Json = False) -> None:
    """List the sets, oldest first."""
    from mediqa_node.storage import backscores

    with open_node(context) as (_, database), database.read() as connection:
        now = time.time()
        found = [(one, backscores.progress(connection, one.id, now=now)) for one in backscores.all_sets(connection)]
    if json:
        as_json([_as_dict(one, known) for one, known in found])
        return
    table(
        ("id", "started", "by", "state", "done", "of", "checkpoint", "selection"),
        [
            (
                str(one.id),
                date(one.made_at),
                one.made_by,
                one.state.lower(),
                f"{known.n_done:,}",
                f"{one.total:,}",
                one.weights.name,
                _in_words(one.selection),
            )
            for one, known in found
        ],
    )
    if not found:
        typer.echo("no set; `mediqa-node backscore start` starts one")


@backscore_app.command()
def show(
    context: typer.Context,
    number: Id,
    follow: Annotated[bool, typer.Option("--follow", help="Show the progress until the set stops running.")] = False,
    json: Json = False,
) -> None:
    """Show how far a set is, and what became of its series.

    The exit status is 1 if there is no such set, or scoring has failed on a series of it.
    """
    from mediqa_node.domain.backscore import ItemState

    with open_node(context) as (_, database):
        one, known = _look(database, number)
        if follow:
            one, known = _follow(database, one, known)
    if json:
        as_json(_as_dict(one, known))
    else:
        _print(one, known)
    sys.exit(1 if any(outcome.state is ItemState.FAILED for outcome in known.outcomes) else 0)


@backscore_app.command()
def scores(
    context: typer.Context,
    number: Id,
    out: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="CSV file to write. Without it: standard output.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write the outcome and score of each series of a set as CSV.

    Each row also has the series' own score and its checkpoint. The table names studies and series by their UIDs.
    """
    from mediqa_node.exchange.backscore_table import backscore_csv
    from mediqa_node.storage import backscores
    from mediqa_node.system.atomic import write_atomically

    if out is not None and out.exists() and not force:
        raise typer.BadParameter(f"{out} exists; --force replaces it", param_hint="FILE")
    with open_node(context) as (_, database):
        one, _ = _look(database, number)
        with database.read() as connection:
            content = backscore_csv(backscores.rows_of(connection, number))
    if out is None:
        sys.stdout.buffer.write(content)
        return
    write_atomically(out, content)
    typer.echo(f"{count(one.n_taken, 'series', 'series')} in {out}")


@backscore_app.command()
def pause(context: typer.Context, number: Id) -> None:
    """Pause a running set; series that are being scored are finished.

    The exit status is 1 if it does not run.
    """
    from mediqa_node.domain.backscore import PauseReason
    from mediqa_node.storage import backscores

    _change(context, number, lambda connection: backscores.pause(connection, number, PauseReason.BY_PERSON), "paused")


@backscore_app.command()
def resume(context: typer.Context, number: Id) -> None:
    """Go on with a paused set.

    The exit status is 1 if it is not paused, or its checkpoint is not the active one.
    """
    from mediqa_node.composition import checkpoints
    from mediqa_node.domain.backscore import WORDS, PauseReason
    from mediqa_node.storage import backscores, promotions

    with open_node(context) as (settings, database):
        one, _ = _look(database, number)
        with database.read() as connection:
            active = checkpoints.active_weights(settings, promotions.standing(connection))
    if not active.same_as(one.weights):
        typer.echo(f"set {number} is for {one.weights.label}: {WORDS[PauseReason.OTHER_CHECKPOINT]}", err=True)
        sys.exit(1)
    _change(context, number, lambda connection: backscores.resume(connection, number), "running")


@backscore_app.command()
def cancel(context: typer.Context, number: Id) -> None:
    """End a set for good; its scores stay.

    The exit status is 1 if it has ended already.
    """
    from mediqa_node.storage import backscores

    at = time.time()
    _change(context, number, lambda connection: backscores.cancel(connection, number, at=at), "cancelled")


def _change(context: typer.Context, number: int, change: Callable[[Connection], bool], state: str) -> None:
    with open_node(context) as (_, database):
        with database.write() as connection:
            changed = change(connection)
        one, _ = _look(database, number)
    if not changed:
        typer.echo(f"set {number} is {one.state.lower()}: nothing was changed", err=True)
        sys.exit(1)
    typer.echo(f"set {number} {state}")


def _look(database: Database, number: int) -> tuple[BackscoreSet, Progress]:
    from mediqa_node.storage import backscores

    with database.read() as connection:
        one = backscores.find(connection, number)
        if one is not None:
            return one, backscores.progress(connection, number, now=time.time())
    typer.echo(f"no set {number}; `mediqa-node backscore list` lists them", err=True)
    sys.exit(1)


def _follow(database: Database, one: BackscoreSet, known: Progress) -> tuple[BackscoreSet, Progress]:
    """Show a bar until the set stops running."""
    from mediqa_node.domain.backscore import SetState

    with progress(f"set {one.id}") as advance:
        while one.state is SetState.RUNNING:
            advance(known.n_done, max(one.total, known.n_done))
            time.sleep(_LOOK_EVERY_S)
            one, known = _look(database, one.id)
    return one, known


def _print(one: BackscoreSet, known: Progress) -> None:
    from mediqa_node.domain.backscore import UNDER_WAY, WORDS, ItemState, SetState

    fact(f"set {one.id}", f"started {date(one.made_at)} by {one.made_by}, for {one.weights.label}")
    fact("selection", _in_words(one.selection) + (", reported" if one.with_reports else ", not reported"))
    why = f": {WORDS[one.pause_reason]}" if one.pause_reason else ""
    fact("state", f"{one.state.lower()}{f' {date(one.done_at)}' if one.done_at else ''}{why}")
    fact("done", f"{known.n_done:,} of {one.total:,}" + (f", {known.n_under_way} at work" if known.n_under_way else ""))
    for outcome in (found for found in known.outcomes if found.state not in UNDER_WAY):
        reason = f": {outcome.reason_code.replace('_', ' ')}" if outcome.reason_code else ""
        fact("", f"{outcome.n:>9,} {_OUTCOMES.get(outcome.state, str(outcome.state))}{reason}")
    if one.state is SetState.DONE and one.total > one.n_taken:
        fact("", f"{one.total - one.n_taken:>9,} no longer in the selection when their turn came")
    left_s = known.left_s(one.total) if one.state is SetState.RUNNING else None
    if one.state is SetState.RUNNING:
        rate = f"{known.per_minute:.1f} series a minute" if known.per_minute is not None else "not known yet"
        fact("rate", rate + (f", about {span(left_s)} left" if left_s else ""))
    if any(outcome.state is ItemState.FAILED for outcome in known.outcomes):
        typer.echo("→ mediqa-node verify names missing and changed files; start another set to try them again")
    elif one.state is SetState.PAUSED:
        typer.echo(f"→ mediqa-node backscore resume {one.id}")


_OUTCOMES = {
    "scored": "scored",
    "alongside": "scored, kept alongside the reported score",
    "refused": "not scored",
    "failed": "failed",
    "changed": "received again since, and assessed by themselves",
    "cancelled": "cancelled",
}


def _in_words(selection: Selection) -> str:
    days = " to ".join(filter(None, (selection.since, selection.until)))
    if selection.until and not selection.since:
        days = f"until {selection.until}"
    elif selection.since and not selection.until:
        days = f"since {selection.since}"
    parts = (
        selection.modality,
        selection.station,
        f"from {selection.calling_ae}" if selection.calling_ae else "",
        days,
        "scored or not" if selection.with_score else "without a score of this checkpoint",
        f"at most {selection.at_most:,}" if selection.at_most is not None else "",
    )
    return ", ".join(filter(None, parts))


def _as_dict(one: BackscoreSet, known: Progress) -> dict[str, Any]:
    return {
        **asdict(one),
        "n_done": known.n_done,
        "n_under_way": known.n_under_way,
        "per_minute": known.per_minute,
        "left_s": known.left_s(one.total) if one.state == "RUNNING" else None,
        "outcomes": [asdict(outcome) for outcome in known.outcomes],
    }
