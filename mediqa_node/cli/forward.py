"""`mediqa-node forward`: what waits on its way to other archives, what was refused, and what is missing there."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import open_node, quiet
from mediqa_node.cli.options import Commands, Json
from mediqa_node.cli.present import as_json, count, date, fact, table

if TYPE_CHECKING:
    from mediqa_node.domain.forward import ForwardQueue
    from mediqa_node.storage.forwards import ForwardRow
    from mediqa_node.storage.reconciliations import Reconciliation

forward_app = typer.Typer(
    cls=Commands,
    help="Received instances on their way to other archives.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(forward_app, name="forward")

_SHOWN = 50
Numbers = Annotated[list[int] | None, typer.Argument(metavar="NUMBER", help="As `forward list` shows them.")]
To = Annotated[str | None, typer.Option("--to", metavar="PEER", help="Only this destination.")]


@forward_app.command("list")
def show(context: typer.Context, to: To = None, json: Json = False) -> None:
    """List what waits, is held or was refused.

    Held are further copies of an image that differ from the first, until somebody has decided between them.

    The exit status is 1 if something is held or was refused.
    """
    from mediqa_node.domain.forward import ForwardState
    from mediqa_node.storage import forwards

    stopped = (ForwardState.HELD, ForwardState.PARKED)
    with open_node(context) as (_, database), database.read() as connection:
        queues = [queue for queue in forwards.queues(connection) if to in (None, queue.destination)]
        rows = forwards.in_states(connection, *stopped, destination=to, at_most=_SHOWN)
        waiting = forwards.in_states(connection, ForwardState.WAITING, destination=to, at_most=5)
    if json:
        as_json({"queues": [asdict(one) for one in queues], "stopped": [asdict(row) for row in rows]})
    else:
        _print_queues(queues, [*rows, *(row for row in waiting if row.message)])
    sys.exit(1 if any(queue.n_held or queue.n_parked for queue in queues) else 0)


def _print_queues(found: list[ForwardQueue], rows: list[ForwardRow]) -> None:
    if not found:
        typer.echo("nothing waits to be forwarded")
        return
    heads = ("destination", "waiting", "held", "refused", "since")
    table(
        heads,
        [
            (one.destination, f"{one.n_waiting:,}", f"{one.n_held:,}", f"{one.n_parked:,}", date(one.oldest_at))
            for one in found
        ],
    )
    for row in rows:
        why = str(row.reason_code or "").replace("_", " ")
        fact(str(row.id), f"{row.state} for {row.destination}, instance {row.sop_instance_uid}: {why}", indent=10)
        if row.message:
            fact("", row.message, indent=10)
    if any(one.n_held for one in found):
        typer.echo("→ copies that differ: mediqa-node status names their series, mediqa-node retry decides")
    if any(one.n_parked for one in found):
        typer.echo("→ mediqa-node forward retry, or mediqa-node forward cancel NUMBER --by NAME --reason TEXT")


@forward_app.command()
def retry(context: typer.Context, numbers: Numbers = None, to: To = None) -> None:
    """Send again what was refused; by default all of it.

    The exit status is 1 if nothing of that name was refused.
    """
    from mediqa_node.domain.forward import ForwardState
    from mediqa_node.storage import forwards

    with open_node(context) as (_, database), database.write() as connection:
        n = forwards.move(
            connection,
            numbers,
            (ForwardState.PARKED,),
            destination=to,
            state=ForwardState.WAITING,
            not_before=time.time(),
            done_at=None,
        )
    typer.echo(f"{count(n, 'instance')} sent again")
    sys.exit(0 if n else 1)


@forward_app.command()
def cancel(
    context: typer.Context,
    numbers: Annotated[list[int], typer.Argument(metavar="NUMBER", help="As `forward list` shows them.")],
    by: Annotated[str, typer.Option(metavar="NAME", help="Who decides.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why the destination does not need it.")],
) -> None:
    """Give up forwarding instances.

    Their senders were told that they are stored: cancel only what the destination has, or does not need. The exit
    status is 1 if none was cancelled.
    """
    from mediqa_node.domain.forward import UNSENT, ForwardReason, ForwardState
    from mediqa_node.storage import forwards

    if not by.strip() or not reason.strip():
        raise typer.BadParameter("--by and --reason must not be empty")
    with open_node(context) as (_, database), database.write() as connection:
        n = forwards.move(
            connection,
            numbers,
            UNSENT,
            state=ForwardState.SUPERSEDED,
            reason_code=ForwardReason.CANCELLED,
            message=f"by {by.strip()[:64]}: {reason.strip()[:200]}",
            done_at=time.time(),
        )
    typer.echo(f"{count(n, 'forward')} cancelled")
    sys.exit(0 if n else 1)


@forward_app.command()
def reconcile(
    context: typer.Context,
    to: To = None,
    study: Annotated[
        list[str] | None, typer.Option("--study", metavar="UID", help="Only this study; may be repeated.")
    ] = None,
    days: Annotated[
        int, typer.Option(min=1, metavar="DAYS", help="Studies of which something was sent in the last days.")
    ] = 8,
    send_again: Annotated[bool, typer.Option("--send-again", help="Have what is missing sent again.")] = False,
    json: Json = False,
) -> None:
    """Compare what was sent with what archives hold.

    Asks by C-FIND, study by study, for every instance that senders were told is stored.

    The exit status is 1 if anything is missing, or a destination does not answer.
    """
    from mediqa_node.cli.progress import progress
    from mediqa_node.composition import resources
    from mediqa_node.domain.forward import Reconciled
    from mediqa_node.pipeline.forward import reconcile as comparison

    quiet()
    with open_node(context) as (settings, database):
        node = resources.forward_context(settings, database)
        found: list[Reconciliation] = []
        with progress("comparing") as advance:
            wanted = comparison.studies_sent(node, since=time.time() - 86_400 * days, destination=to, only=study)
            for done, (name, studies) in enumerate(wanted.items()):
                advance(done, len(wanted))
                found += comparison.reconcile(node, name, studies)
        n_again = comparison.send_again(node, found) if send_again else None
    if json:
        as_json({"studies": [asdict(one) for one in found], "sent_again": n_again})
    else:
        _print_reconciled(found, n_again)
    sys.exit(0 if all(one.outcome is Reconciled.COMPLETE for one in found) else 1)


@forward_app.command()
def gaps(context: typer.Context, json: Json = False) -> None:
    """List studies that are not complete at an archive.

    As they were last compared, by the node every day or by `forward reconcile`.

    The exit status is 1 if there is one.
    """
    from mediqa_node.storage import reconciliations

    with open_node(context) as (_, database), database.read() as connection:
        found = reconciliations.latest(connection, only_gaps=True)
    if json:
        as_json([asdict(one) for one in found])
    else:
        _print_reconciled(found, None)
    sys.exit(1 if found else 0)


def _print_reconciled(found: list[Reconciliation], n_again: int | None) -> None:
    incomplete = [one for one in found if one.outcome != "complete"]
    if incomplete:
        heads = ("destination", "study", "compared", "expected", "there", "outcome")
        table(
            heads,
            [
                (
                    one.destination,
                    one.study_instance_uid,
                    date(one.checked_at),
                    f"{one.n_expected:,}",
                    f"{one.n_found:,}",
                    f"{one.outcome} {one.message}".strip(),
                )
                for one in incomplete
            ],
        )
    typer.echo(f"{count(len(found), 'study', 'studies')}, {len(incomplete)} not complete")
    if n_again is not None:
        typer.echo(f"{count(n_again, 'instance')} sent again")
    elif any(one.outcome == "missing" for one in incomplete):
        typer.echo("→ mediqa-node forward reconcile --send-again")
