"""`mediqa-node baseline`: what is usual for a measure on this site's scanners, and who approved it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import open_node
from mediqa_node.cli.dates import day
from mediqa_node.cli.options import Commands, Json
from mediqa_node.cli.present import as_json, count, date, table

if TYPE_CHECKING:
    from mediqa_node.domain.baseline import Usual
    from mediqa_node.storage.baselines import BaselineRow

baseline_app = typer.Typer(
    cls=Commands,
    help="Make and approve the usual values of measures.",
    no_args_is_help=True,
)
app.add_typer(baseline_app, name="baseline")

By = Annotated[str, typer.Option(metavar="NAME", help="Who decides. Required; the name is recorded.")]
Number = Annotated[int, typer.Argument(metavar="NUMBER", help="Number in `mediqa-node baseline list`.")]
_DAY_S = 86_400.0


@baseline_app.command()
def make(
    context: typer.Context,
    by: By,
    since: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="First day of the period. Required.")],
    until: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="Last day of the period. The default is today.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a baseline from the series that were measured in a period.

    Each scanner, protocol, reconstruction and band of patient size has its own usual values, from 30 exams or
    more. Nothing is compared with a baseline before it is approved.
    """
    from mediqa_node.domain.baseline import FEWEST_EXAMS, usual_values
    from mediqa_node.storage import baselines, measures

    start, end = day(since, "--since"), day(until, "--until")
    end = end + _DAY_S if end is not None else time.time()
    if start is None or start >= end:
        raise typer.BadParameter(f"{since!r}: must be before the end of the period", param_hint="--since")
    with open_node(context) as (_, database):
        with database.read() as connection:
            measured = measures.newest(connection, since=start, until=end)
        usual = usual_values(measured)
        number = None
        if usual:
            with database.write() as connection:
                number = baselines.make(connection, usual, since=start, until=end, by=by, now=time.time())
    if json:
        as_json({"baseline": number, "n_series": len(measured), "usual": [_usual_dict(one) for one in usual]})
    elif usual:
        _print(usual)
        typer.echo(f"baseline {number} of {count(len(measured), 'measured series', 'measured series')}, not approved")
        typer.echo(f"→ mediqa-node baseline approve {number} --by NAME")
    else:
        typer.echo(
            f"no baseline: of {count(len(measured), 'measured series', 'measured series')} in this period no scanner, "
            f"protocol, reconstruction and size has {FEWEST_EXAMS} exams",
            err=True,
        )
    sys.exit(0 if usual else 1)


@baseline_app.command("list")
def list_(context: typer.Context, json: Json = False) -> None:
    """List the baselines, with their periods and who approved them."""
    from mediqa_node.storage import baselines

    with open_node(context) as (_, database), database.read() as connection:
        rows = baselines.every(connection)
    if json:
        as_json([row.as_dict() for row in rows])
    elif rows:
        table(("baseline", "from", "to", "values", "made by", "state"), [_cells(row) for row in rows])
    else:
        typer.echo("no baseline; `mediqa-node baseline make --since YYYY-MM-DD --by NAME` makes one")


@baseline_app.command()
def show(
    context: typer.Context,
    number: Annotated[
        int | None, typer.Argument(metavar="NUMBER", help="Number in the list. The default is the approved baseline.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the usual values of a baseline."""
    from mediqa_node.storage import baselines

    with open_node(context) as (_, database), database.read() as connection:
        rows = baselines.every(connection)
        chosen = next((row for row in rows if (row.id == number if number is not None else row.is_active)), None)
        usual = baselines.usual_in(connection, chosen.id) if chosen else []
    if chosen is None:
        typer.echo(f"no baseline {number}" if number is not None else "no baseline is approved", err=True)
        sys.exit(1)
    if json:
        as_json({**chosen.as_dict(), "usual": [_usual_dict(one) for one in usual]})
        return
    _print(usual)
    typer.echo(f"baseline {chosen.id}: {_state(chosen)}")


@baseline_app.command()
def approve(context: typer.Context, number: Number, by: By) -> None:
    """Approve a baseline, in place of any other.

    Reports then state what is usual here, and at most three measures that stand out from it.
    """
    from mediqa_node.storage import baselines

    with open_node(context) as (_, database), database.write() as connection:
        done = baselines.approve(connection, number, by=by, now=time.time())
    _end(done, f"baseline {number} is used from now on", f"baseline {number} does not await approval")


@baseline_app.command()
def withdraw(context: typer.Context, number: Number, by: By) -> None:
    """Use a baseline no more; it stays in the list."""
    from mediqa_node.storage import baselines

    with open_node(context) as (_, database), database.write() as connection:
        done = baselines.withdraw(connection, number, by=by, now=time.time())
    _end(done, f"baseline {number} is withdrawn", f"no baseline {number} that could be withdrawn")


def _end(done: bool, good: str, bad: str) -> None:
    typer.echo(good if done else f"{bad}; `mediqa-node baseline list` shows all", err=not done)
    sys.exit(0 if done else 1)


def _cells(row: BaselineRow) -> tuple[str, ...]:
    last = date(row.until - 1)[:10]
    return str(row.id), date(row.since)[:10], last, str(row.n_usual), row.made_by, _state(row)


def _state(row: BaselineRow) -> str:
    if row.withdrawn_at is not None:
        return f"withdrawn {date(row.withdrawn_at)[:10]} by {row.withdrawn_by}"
    if row.approved_at is None:
        return "not approved"
    return f"approved {date(row.approved_at)[:10]} by {row.approved_by}"


def _print(usual: Sequence[Usual]) -> None:
    from mediqa_node.domain.quantities import QUANTITIES, SHOWN_UNITS

    rows = []
    for one in usual:
        known = QUANTITIES.get(one.name)
        places, unit = (known.places, SHOWN_UNITS.get(known.unit, known.unit)) if known else (3, "")
        group = one.group
        stack = group.stack if group.stack != "all images" else ""
        what = " ".join(filter(None, (group.protocol, stack, group.kernel, group.thickness)))
        values = (f"{one.median:.{places}f}", f"{one.spread:.{places}f}", unit)
        rows.append((group.scanner, what, group.size_class, one.name, *values, str(one.n)))
    table(("scanner", "protocol", "size", "measure", "median", "±", "unit", "exams"), rows)


def _usual_dict(one: Usual) -> dict[str, object]:
    from dataclasses import asdict

    values = asdict(one)
    return {**values.pop("group"), **values}
