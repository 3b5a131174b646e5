"""`mediqa-node clock`: how the machine's clock ran, and whether retention may go on."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import open_node
from mediqa_node.cli.present import ago, fact
from mediqa_node.domain.health import span

if TYPE_CHECKING:
    from mediqa_node.storage.clock import ClockRow


@app.command("clock")
def clock_command(
    context: typer.Context,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="State that the clock is right now: retention goes on at once.")
    ] = False,
    by: Annotated[str, typer.Option(metavar="NAME", help="Who has looked at the clock.")] = "",
) -> None:
    """Show the last time that the machine's clock was set.

    After a step forward of more than an hour nothing is deleted or given up for a day, or until somebody confirms that
    the clock is right. The exit status is 1 while this is so.
    """
    from mediqa_node.storage import clock

    if confirm and not 1 <= len(by.strip()) <= 64:
        raise typer.BadParameter("give the name of who has looked at the clock, 1 to 64 characters", param_hint="--by")
    with open_node(context) as (_, database):
        if confirm:
            with database.write() as connection:
                done = clock.confirm(connection, by=by.strip())
            typer.echo("retention goes on" if done else "nothing waits for a confirmation")
            return
        with database.read() as connection:
            known = clock.load(connection)
    now = time.time()
    if known is None or known.step_s is None or known.stepped_at is None:
        typer.echo("the clock was not set since this node has watched it")
        return
    fact("clock", step_in_words(known, now))
    if known.confirmed_by:
        fact("", f"confirmed by {known.confirmed_by}")
    if is_paused(known, now):
        fact("", ADVICE)
        sys.exit(1)


ADVICE = "→ if it is right now: mediqa-node clock --confirm --by NAME"


def is_paused(known: ClockRow, now: float) -> bool:
    """Whether nothing is deleted or given up because of the last step."""
    return known.paused_until is not None and now < known.paused_until


def step_in_words(known: ClockRow, now: float) -> str:
    """Return the last step, and what it holds up."""
    step_s = known.step_s or 0.0
    direction = "forward" if step_s > 0 else "back"
    text = f"the clock was set {direction} by {span(abs(step_s))}, {ago(now - (known.stepped_at or now))}"
    if is_paused(known, now):
        text += f"; nothing is deleted or given up for another {span((known.paused_until or now) - now)}"
    return text
