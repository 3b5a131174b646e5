"""Commands that run the node, show its state and retry parked work."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import arguments_of, open_node, settings_of, start_logging
from mediqa_node.cli.options import Json
from mediqa_node.cli.present import ago, as_json, count, fact, size, span

if TYPE_CHECKING:
    from mediqa_node.domain.constancy import Check
    from mediqa_node.pipeline.export.nightly import Outcome
    from mediqa_node.storage.index import SeriesRow
    from mediqa_node.storage.outbox import DeliveryRow
    from mediqa_node.storage.overview import Dispute


@app.command()
def serve(context: typer.Context) -> None:
    """Run the node until it is stopped.

    Starts three processes: the receiver, the worker that scores, and the courier that delivers reports.
    """
    from mediqa_node import service

    start_logging(context)
    settings = settings_of(context)
    sys.exit(service.serve(settings, arguments_of(context, settings)))


@app.command(hidden=True)
def process(context: typer.Context, role: Annotated[str, typer.Argument(help="receiver, worker or courier.")]) -> None:
    """Run one of the node's processes; `serve` starts them."""
    from mediqa_node import service

    start_logging(context)
    if role not in service.ROLES:
        raise typer.BadParameter(f"must be one of {', '.join(service.ROLES)}")
    sys.exit(service.run_role(role, settings_of(context)))


@app.command()
def demo(
    port: Annotated[int, typer.Option(metavar="PORT", help="Port of the node; 0 picks a free one.")] = 0,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the node's data. The default is a new one.")
    ] = None,
) -> None:
    """Send a real CT series through a node and show its report."""
    from mediqa_node.cli import demo as demonstration

    sys.exit(demonstration.run(port=port, folder=keep))


@app.command()
def status(context: typer.Context, json: Json = False) -> None:
    """Show what the node is doing and what needs attention.

    The exit status is 1 if something needs attention.
    """
    from mediqa_node import service
    from mediqa_node.composition import checkpoints, resources
    from mediqa_node.domain.series import HELD, DeliveryState, SeriesState
    from mediqa_node.pipeline.export.nightly import last_outcome
    from mediqa_node.storage import constancy_checks, index, outbox, overview, promotions

    with open_node(context) as (settings, database):
        now = time.time()
        with database.read() as connection:
            facts = overview.facts(connection)
            waiting = outbox.deliveries_in(connection, DeliveryState.WAITING)
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
    spool = resources.open_spool(settings)
    is_full = not spool.has_room()
    needs_a_person = bool(held or stopped or disputes or missing or drifted or not_exported or is_full)
    if json:
        found = {
            **facts.as_dict(),
            "running": running,
            "has_room": not is_full,
            "held": [asdict(row) for row in held],
            "waiting": [asdict(row) for row in waiting],
            "stopped": [row.as_dict() for row in stopped],
            "disputes": [asdict(row) for row in disputes],
            "constancy": asdict(checked) if checked else None,
            "export": asdict(exported) if exported else None,
            "weights": {"in_force": checkpoints.sentence(settings, decided), **asdict(decided)},
        }
        as_json(found)
        sys.exit(needs_a_person)
    state = f"{', '.join(missing)} not running here" if missing else "running"
    arriving = f"{count(facts.n_receiving, 'series', 'series')} arriving, {count(facts.n_ready, 'assessment')}"
    kept = f"{count(facts.n_series, 'series', 'series')}, {count(facts.n_instances, 'instance')}, {size(facts.n_bytes)}"
    fact("node", f"{settings.node.ae_title} at {settings.node.host}:{settings.node.port}: {state}")
    fact("received", f"last {ago(now - facts.last_at)} from {facts.last_from}" if facts.last_at else "nothing yet")
    fact("kept", f"{kept}; {size(spool.free_bytes())} free")
    if is_full:
        fact("", f"→ nothing is received until {size(settings.retention.low_water_bytes)} are free")
    fact("waiting", f"{arriving}, {count(facts.n_waiting, 'delivery', 'deliveries')}")
    _print_waiting(waiting, now)
    fact("checkpoint", checkpoints.sentence(settings, decided))
    fact("done", ", ".join(f"{n:,} {state.lower()}" for state, n in facts.ended) or "nothing yet")
    _print_checks(exported, drifted, now)
    _print_held(held, stopped, disputes)
    sys.exit(needs_a_person)


def _print_checks(exported: Outcome | None, drifted: Check | None, now: float) -> None:
    """Print the last nightly export, and a constancy check that withholds results."""
    if exported is not None:
        series = f"{count(exported.n_series, 'series', 'series')} to {exported.folder}"
        fact("exported", f"{ago(now - exported.at)}: {exported.problem or series}")
    if drifted:
        fact("constancy", f"failed {ago(now - drifted.checked_at)}: {drifted.finding()}")
        fact("", f"→ {drifted.advice()}")


def _print_waiting(waiting: Sequence[DeliveryRow], now: float) -> None:
    """Print each destination that did not accept a report at the first attempt, and why."""
    for destination in dict.fromkeys(row.destination for row in waiting if row.attempts):
        rows = [row for row in waiting if row.destination == destination]
        longest = span(now - min(row.created_at for row in rows))
        why = next((row.message for row in rows if row.attempts and row.message), None) or "no answer yet"
        fact("", f"{destination}: {count(len(rows), 'report')} for up to {longest}: {why}")


def _print_held(held: list[DeliveryRow], stopped: list[SeriesRow], disputes: list[Dispute]) -> None:
    """Print each item that needs attention, with its next step."""
    from mediqa_node.domain.series import UNPROVEN, DeliveryState

    disputed = {dispute.series_instance_uid for dispute in disputes}
    for delivery in held:
        fact(delivery.state, f"delivery {delivery.id} to {delivery.destination}: {delivery.message}")
        if delivery.series_instance_uid in disputed:
            continue  # its next step stands below
        first = "" if delivery.state == DeliveryState.WITHHELD else f"mediqa-node echo {delivery.destination}, then "
        fact("", f"→ {first}mediqa-node retry {delivery.id}")
    shown = disputed | {delivery.series_instance_uid for delivery in held}
    unproven = [row for row in stopped if row.reason and row.reason.code in UNPROVEN]
    _print_unproven(unproven)
    for row in stopped:
        if row.series_instance_uid not in shown and row not in unproven:
            fact(row.state.lower(), f"series {row.series_instance_uid}: {row.reason}")
            fact("", f"→ mediqa-node retry {row.series_instance_uid}")
    for dispute in disputes:
        what = "other pixels" if dispute.status == "conflict" else "another patient, study or description"
        copies = count(dispute.n_copies, "further copy", "further copies")
        fact(dispute.status, f"series {dispute.series_instance_uid}: {copies} with {what}")
        fact("", f"→ mediqa-node retry {dispute.series_instance_uid} --keep-first")


def _print_unproven(rows: list[SeriesRow]) -> None:
    """Print how many series wait for a good constancy check, instead of one line for each."""
    from mediqa_node.domain.series import ReasonCode

    unscored = [row for row in rows if row.reason and row.reason.code == ReasonCode.CONSTANCY_UNKNOWN]
    drifted = len(rows) - len(unscored)
    if unscored:
        fact("withheld", f"{count(len(unscored), 'series', 'series')}, because the reference set could not be scored")
        fact("", "→ they continue by themselves after a good check of the worker")
    if drifted:
        fact("withheld", f"{count(drifted, 'series', 'series')}, because the score has drifted")
        fact("", "→ mediqa-node retry, once a check is good or the drift is accepted")


@app.command()
def verify(
    context: typer.Context,
    peers: Annotated[
        bool, typer.Option("--peers/--no-peers", help="Also ask every destination for the reports it received.")
    ] = True,
    json: Json = False,
) -> None:
    """Compare the database with the files and the peers.

    The exit status is 1 on any difference.
    """
    from mediqa_node.cli.progress import progress
    from mediqa_node.composition import resources
    from mediqa_node.pipeline.checks.verify import verify as compare

    with open_node(context) as (settings, database):
        node = resources.node_context(settings, database)
        with progress("checking") as advance:
            found = compare(node, ask_peers=peers, advance=advance)
    if json:
        as_json(found.as_dict())
    else:
        typer.echo(f"{count(found.n_instances, 'instance')}, {count(found.n_reports, 'report')} checked")
        for problem in found.problems:
            typer.echo(f"  {problem}")
        typer.echo("no problem found" if not found.problems else f"{count(len(found.problems), 'problem')} found")
    sys.exit(1 if found.problems else 0)
