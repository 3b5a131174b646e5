"""Commands of the running node, and of the person who looks after it."""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mediqa_node import service
from mediqa_node.cli import app
from mediqa_node.cli.common import arguments_of, open_node, settings_of, start_logging
from mediqa_node.cli.present import ago, count, size, table
from mediqa_node.composition import checkpoints, resources
from mediqa_node.domain.series import HELD, ReasonCode, SeriesState
from mediqa_node.storage import assessments, constancy_checks, index, outbox, overview, promotions

_UNPROVEN = (ReasonCode.CONSTANCY_DRIFT, ReasonCode.CONSTANCY_UNKNOWN)
Json = Annotated[bool, typer.Option("--json", help="For machines.")]


@app.command()
def serve(context: typer.Context) -> None:
    """Run the node until it is stopped: receive, judge, deliver."""
    start_logging(context)
    settings = settings_of(context)
    sys.exit(service.serve(settings, arguments_of(context, settings)))


@app.command(hidden=True)
def process(context: typer.Context, role: Annotated[str, typer.Argument(help="receiver, worker or courier")]) -> None:
    """Run one of the node's processes; `serve` starts them."""
    start_logging(context)
    if role not in service.ROLES:
        raise typer.BadParameter(f"must be one of {', '.join(service.ROLES)}")
    sys.exit(service.run_role(role, settings_of(context)))


@app.command()
def demo(
    port: Annotated[int, typer.Option(help="Port of the node; 0 takes a free one.")] = 0,
    keep: Annotated[Path | None, typer.Option(help="Folder for spool, database and report; else a new one.")] = None,
) -> None:
    """Send a real CT series through a node and show its report."""
    from mediqa_node.cli import demo as demonstration

    sys.exit(demonstration.run(port=port, folder=keep))


@app.command()
def status(context: typer.Context, as_json: Json = False) -> None:
    """Say what the node does and what needs a person.

    Exit status 1 if something does.
    """
    from mediqa_node.pipeline.export.nightly import last_outcome

    with open_node(context) as (settings, database):
        now = time.time()
        with database.read() as connection:
            facts = overview.facts(connection)
            held = outbox.deliveries_in(connection, *HELD)
            stopped = index.series_in(connection, SeriesState.PARKED, SeriesState.WITHHELD)
            disputes = overview.disputes(connection)
            checked = constancy_checks.standing(connection)
            decided = promotions.standing(connection)
    exported = last_outcome(settings.export_folder) if settings.export.nightly else None
    running = service.running_roles(settings)
    missing = [role for role in service.ROLES if role not in running]
    drifted = checked if checked is not None and checked.withholds else None
    not_exported = exported if exported is not None and exported.problem else None
    needs_a_person = bool(held or stopped or disputes or missing or drifted or not_exported)
    if as_json:
        found = {**facts.as_dict(), "running": running, "held": [asdict(row) for row in held]}
        found |= {"stopped": [row.as_dict() for row in stopped], "disputes": [asdict(row) for row in disputes]}
        found |= {"constancy": asdict(checked) if checked else None}
        found |= {"export": asdict(exported) if exported else None}
        found |= {"weights": {"in_force": checkpoints.sentence(settings, decided), **asdict(decided)}}
        typer.echo(json.dumps(found, indent=2))
        sys.exit(needs_a_person)
    state = f"{', '.join(missing)} not running here" if missing else "running"
    arriving = f"{count(facts.n_receiving, 'series', 'series')} arriving, {count(facts.n_ready, 'assessment')}"
    kept = f"{count(facts.n_series, 'series', 'series')}, {count(facts.n_instances, 'instance')}, {size(facts.n_bytes)}"
    for name, text in (
        ("node", f"{settings.node.ae_title} at {settings.node.host}:{settings.node.port}: {state}"),
        ("received", f"last {ago(now - facts.last_at)} from {facts.last_from}" if facts.last_at else "nothing yet"),
        ("kept", f"{kept}; {size(resources.open_spool(settings).free_bytes())} free"),
        ("waiting", f"{arriving}, {count(facts.n_waiting, 'delivery', 'deliveries')}"),
        ("weights", checkpoints.sentence(settings, decided)),
        ("done", ", ".join(f"{n:,} {state.lower()}" for state, n in facts.ended) or "nothing yet"),
    ):
        typer.echo(f"{name:<12}{text}")
    if exported is not None:
        series = f"{count(exported.n_series, 'series', 'series')} to {exported.folder}"
        typer.echo(f"{'exported':<12}{ago(now - exported.at)}: {exported.problem or series}")
    if drifted:
        typer.echo(f"constancy   failed {ago(now - drifted.checked_at)}: {drifted.finding()}")
        typer.echo(f"            → {drifted.advice()}")
    _print_held(held, stopped, disputes)
    sys.exit(needs_a_person)


def _print_held(
    held: list[outbox.DeliveryRow], stopped: list[index.SeriesRow], disputes: list[overview.Dispute]
) -> None:
    """Say what a person has to look at, each with the next step."""
    for delivery in held:
        typer.echo(f"{delivery.state:<12}delivery {delivery.id} to {delivery.destination}: {delivery.message}")
        first = "" if delivery.state == "withheld" else f"mediqa-node echo {delivery.destination}, then "
        typer.echo(f"            → {first}mediqa-node retry {delivery.id}")
    told = {delivery.series_instance_uid for delivery in held}
    unproven = [row for row in stopped if row.reason and row.reason.code in _UNPROVEN]
    _print_unproven(unproven)
    for row in stopped:
        if row.series_instance_uid not in told and row not in unproven:
            typer.echo(f"{row.state.lower():<12}series {row.series_instance_uid}: {row.reason}")
            typer.echo(f"            → mediqa-node retry {row.series_instance_uid}")
    for dispute in disputes:
        what = "other pixels" if dispute.status == "conflict" else "another patient, study or description"
        copies = count(dispute.n_copies, "further copy", "further copies")
        typer.echo(f"{dispute.status:<12}series {dispute.series_instance_uid}: {copies} with {what}")
        typer.echo(f"            → mediqa-node retry {dispute.series_instance_uid} --keep-first")


def _print_unproven(rows: list[index.SeriesRow]) -> None:
    """Say how many series wait for constancy: a day of them says no more than one."""
    unscored = [row for row in rows if row.reason and row.reason.code is ReasonCode.CONSTANCY_UNKNOWN]
    drifted = len(rows) - len(unscored)
    if unscored:
        typer.echo(
            f"withheld    {count(len(unscored), 'series', 'series')}, because the reference set could not be scored"
        )
        typer.echo("            → they go on by themselves after a good check of the worker")
    if drifted:
        typer.echo(f"withheld    {count(drifted, 'series', 'series')}, because the score has drifted")
        typer.echo("            → mediqa-node retry, once a check is good or the drift is acknowledged")


@app.command()
def series(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help="Only this state.")] = None,
    as_json: Json = False,
) -> None:
    """List the series, newest last."""
    chosen = [_state(state)] if state else []
    with open_node(context) as (_, database), database.read() as connection:
        rows = index.series_in(connection, *chosen)
        scored = assessments.scored(connection, [row.series_instance_uid for row in rows])
    if as_json:
        typer.echo(json.dumps([_series_dict(row, scored.get(row.series_instance_uid)) for row in rows], indent=2))
        return
    now = time.time()
    table(
        ("series", "modality", "images", "state", "score", "verdict", "why", "last"),
        [_cells(row, scored.get(row.series_instance_uid), now) for row in rows],
    )
    if any(not score.trained for score in scored.values()):
        typer.echo("UNTRAINED WEIGHTS: these scores have no meaning.")
    if rows:
        typer.echo(f"→ mediqa-node show {rows[-1].series_instance_uid}")


def _state(name: str) -> SeriesState:
    try:
        return SeriesState(name.upper())
    except ValueError:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(SeriesState).lower()}") from None


def _cells(row: index.SeriesRow, score: assessments.Scored | None, now: float) -> tuple[str, ...]:
    quality, verdict = (f"{score.quality:.2f}", score.verdict) if score else ("–", "–")
    why = str(row.reason or row.completion or "")[:60]
    last = ago(now - row.last_instance_at)
    return row.series_instance_uid, row.modality, str(row.n_instances), row.state, quality, verdict, why, last


def _series_dict(row: index.SeriesRow, score: assessments.Scored | None) -> dict[str, object]:
    unknown = {"quality": None, "verdict": None, "trained": None}
    return {**row.as_dict(), **(asdict(score) if score else unknown)}


@app.command()
def show(context: typer.Context, uid: Annotated[str, typer.Argument(help="Series Instance UID")]) -> None:
    """Show all that is known of one series, as JSON.

    State, technique, assessment, deliveries, and what copies there are.
    """
    with open_node(context) as (_, database), database.read() as connection:
        row = index.find_series(connection, uid)
        if row is None:
            typer.echo(f"no series {uid}; `mediqa-node series` lists them", err=True)
            sys.exit(1)
        found = overview.whole_series(connection, row)
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))


@app.command()
def retry(
    context: typer.Context,
    which: Annotated[list[str] | None, typer.Argument(help="Delivery numbers or series UIDs; none: all.")] = None,
    keep_first: Annotated[
        bool, typer.Option(help="Settle disputed copies of these series: the first stays, the others are set aside.")
    ] = False,
) -> None:
    """Send on what was parked or withheld.

    Deliveries are tried again, series that could not be judged are judged again.
    """
    if keep_first and not which:
        raise typer.BadParameter("--keep-first needs the series it is meant for")
    with open_node(context) as (_, database), database.write() as connection:
        n_settled = overview.keep_first(connection, which or []) if keep_first else 0
        n_deliveries, n_series = overview.retry(connection, which or [], now=time.time())
    typer.echo(f"{count(n_deliveries, 'delivery', 'deliveries')} and {count(n_series, 'series', 'series')} tried again")
    if keep_first:
        typer.echo(f"{count(n_settled, 'disputed copy', 'disputed copies')} set aside")
    if n_deliveries + n_series + n_settled == 0:
        typer.echo("nothing is parked or withheld under that name; `mediqa-node status` lists what is")
        sys.exit(1)


@app.command()
def verify(
    context: typer.Context,
    peers: Annotated[bool, typer.Option(help="Also ask every destination for the reports that it was sent.")] = True,
    as_json: Json = False,
) -> None:
    """Hold database, spool and peers against each other.

    Exit status 1 on any difference.
    """
    from mediqa_node.cli.progress import progress
    from mediqa_node.pipeline.checks.verify import verify as compare

    with open_node(context) as (settings, database):
        node = resources.node_context(settings, database)
        with progress("checking") as advance:
            found = compare(node, ask_peers=peers, advance=advance)
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=2))
    else:
        typer.echo(f"{count(found.n_instances, 'instance')}, {count(found.n_reports, 'report')} checked")
        for problem in found.problems:
            typer.echo(f"  {problem}")
        typer.echo("all well" if not found.problems else f"{count(len(found.problems), 'problem')} found")
    sys.exit(1 if found.problems else 0)
