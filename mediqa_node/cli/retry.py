"""`mediqa-node retry`: try again what was parked or withheld, and decide between copies that disagree."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import open_node
from mediqa_node.cli.present import count, fact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mediqa_node.domain.series import CopyDecision
    from mediqa_node.storage.copies import Decision
    from mediqa_node.storage.database import Connection, Database
    from mediqa_node.storage.index import InstanceRow


@app.command()
def retry(
    context: typer.Context,
    which: Annotated[
        list[str] | None, typer.Argument(help="Delivery numbers, series UIDs or their last digits. The default is all.")
    ] = None,
    keep_first: Annotated[
        bool, typer.Option("--keep-first", help="Of copies that disagree, keep what was received first.")
    ] = False,
    keep_last: Annotated[
        bool, typer.Option("--keep-last", help="Of copies that disagree, keep what was received last.")
    ] = False,
    removed: Annotated[
        bool, typer.Option("--removed", help="The report that was to be taken back has been removed there by hand.")
    ] = False,
    by: Annotated[
        str, typer.Option(metavar="NAME", help="Who decides, or has removed it. Without it, nothing is changed.")
    ] = "",
) -> None:
    """Retry what was parked or withheld.

    Deliveries and retractions are sent again; series that could not be assessed are assessed again. Copies of one image
    that disagree need a decision: with --keep-first or --keep-last the command shows what it would mean, and with
    --by also carries it out. So does --removed for a report that no peer takes back. The exit status is 1 if nothing
    was parked, withheld or undecided.
    """
    from mediqa_node.domain.series import CopyDecision
    from mediqa_node.storage import overview

    if sum((keep_first, keep_last, removed)) > 1:
        raise typer.BadParameter("--keep-first, --keep-last and --removed exclude each other")
    decides = keep_first or keep_last or removed
    if decides and not which:
        raise typer.BadParameter("name the series; `mediqa-node status` lists them")
    if by and not decides:
        raise typer.BadParameter("--by goes with --keep-first, --keep-last or --removed", param_hint="--by")
    with open_node(context) as (_, database):
        if removed:
            sys.exit(_end_retractions(database, which or [], by.strip()[:64]))
        if decides:
            action = CopyDecision.KEEP_FIRST if keep_first else CopyDecision.KEEP_LAST
            sys.exit(_decide(database, which or [], action, by.strip()[:64]))
        with database.write() as connection:
            names = [_delivery_or_series(connection, name) for name in which or []]
            n_deliveries, n_series = overview.retry(connection, names, now=time.time())
    typer.echo(f"{count(n_deliveries, 'delivery', 'deliveries')} and {count(n_series, 'series', 'series')} tried again")
    if n_deliveries + n_series == 0:
        typer.echo("nothing of that name is parked or withheld; `mediqa-node status` lists what is")
        sys.exit(1)


def _delivery_or_series(connection: Connection, name: str) -> str:
    """Return a delivery number unchanged, else the UID of the series with this key."""
    from mediqa_node.storage import lookup, outbox

    if (
        name.isascii()
        and name.isdecimal()
        and len(name) < 12
        and outbox.find_delivery(connection, int(name)) is not None
    ):
        return name
    return lookup.series_uid(connection, name) or name


def _decide(database: Database, names: Sequence[str], action: CopyDecision, by: str) -> int:
    """Show what a decision means and, if somebody takes it, carry it out; return the exit status."""
    from mediqa_node.storage import copies, lookup

    status = 0
    with database.write() as connection:
        for name in names:
            uid = lookup.series_uid(connection, name) or name
            decision = copies.proposal(connection, uid, action)
            if decision is None:
                typer.echo(f"{name}: no copies of its images disagree; `mediqa-node status` lists those that do")
                status = 1
                continue
            _print(uid, decision)
            if by:
                n_back = copies.decide(database, connection, decision, by=by, at=time.time())
                fact("done", f"by {by}" + (f"; {count(n_back, 'report')} to be taken back" if n_back else ""))
            else:
                fact(
                    "", f"nothing was changed. → mediqa-node retry {name} --{action.value.replace('_', '-')} --by NAME"
                )
    return status


def _end_retractions(database: Database, names: Sequence[str], by: str) -> int:
    """Show which reports were to be taken back and, if somebody has removed them, end that; return the exit status."""
    from mediqa_node.storage import lookup, retractions

    status = 0
    with database.write() as connection:
        for name in names:
            uid = lookup.series_uid(connection, name) or name
            parked = retractions.parked_of(connection, uid)
            if not parked:
                typer.echo(f"{name}: no report of it waits in vain to be taken back; `mediqa-node status` lists those")
                status = 1
                continue
            fact("series", uid)
            for row in parked:
                fact("removed", f"report {row.report_sop_instance_uid} at {row.destination}")
            if by:
                retractions.removed_by_hand(connection, parked, by=by, at=time.time())
                fact("done", f"by {by}; no longer listed")
            else:
                fact("", f"nothing was changed. → mediqa-node retry {name} --removed --by NAME")
    return status


def _print(series_instance_uid: str, decision: Decision) -> None:
    fact("series", series_instance_uid)
    fact("keep", _described(decision.kept))
    if (kept := decision.identity) is not None:
        visit = f", accession {kept.accession_number}" if kept.accession_number else ""
        fact("", f"patient ID {kept.patient_id or '(empty)'}, {kept.name or 'no name'}{visit}")
    fact("set aside", _described(decision.set_aside) if decision.set_aside else "nothing")
    if decision.left_out:
        fact("", f"{count(decision.left_out, 'image')} without a copy under this identity, no longer used")
    fact("then", "the series is assessed again" if decision.changes else "the series goes on as it is")


def _described(rows: Sequence[InstanceRow]) -> str:
    """Return how many copies there are, since when, and from whom."""
    if not rows:
        return "nothing"
    first = datetime.fromtimestamp(min(row.received_at for row in rows), UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    senders = ", ".join(dict.fromkeys(row.calling_ae_title for row in rows))
    return f"{count(len(rows), 'copy', 'copies')} received from {first} on, sent by {senders}"
