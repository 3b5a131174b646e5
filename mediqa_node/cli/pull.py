"""`mediqa-node pull`: have an archive send series to this node, for baselines and backfill."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import open_node, quiet
from mediqa_node.cli.dates import day
from mediqa_node.cli.options import Json
from mediqa_node.cli.present import as_json, count
from mediqa_node.cli.progress import progress
from mediqa_node.cli.tools import peer_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mediqa_node.pipeline.pull import Pulled

_SHOWN = 20


@app.command()
def pull(
    context: typer.Context,
    peer: Annotated[str, typer.Option("--peer", metavar="NAME", help="Name of a configured peer: the archive.")],
    since: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="First study date.")],
    until: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="Last study date. The default is today.")
    ] = None,
    modality: Annotated[str, typer.Option(metavar="MODALITY", help="CT, MR or OP. The default is all.")] = "",
    description: Annotated[
        str, typer.Option(metavar="REGEX", help="Series Descriptions to pull, case ignored. The default is all.")
    ] = "",
    at_most: Annotated[int | None, typer.Option(metavar="N", min=1, help="Number of series to pull at most.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the series, and pull none.")] = False,
    json: Json = False,
) -> None:
    """Have an archive send series to this node (C-FIND, C-MOVE).

    They are scored and measured, and never reported. Series that are here are left out, so that an interrupted pull
    goes on when it is started again. The node must be running, and the archive must know its AE title, host and port.
    The exit status is 1 if a series was not pulled.
    """
    from mediqa_node.composition import resources
    from mediqa_node.pipeline import pull as station
    from mediqa_node.system.lock import Locked, locked

    days = _date(since, "--since"), _date(until, "--until") if until else datetime.now(UTC).date()
    if days[1] < days[0]:
        raise typer.BadParameter("must not be before --since", param_hint="--until")
    wanted = station.Wanted(
        since=days[0],
        until=days[1],
        modality=modality.upper(),
        has_description=_filter(description),
        at_most=at_most,
    )
    quiet()
    with open_node(context) as (settings, database):
        node, archive = resources.node_context(settings, database), peer_of(settings, peer)
        if not dry_run:
            station.require_receiver(node)
        with progress(f"asking {peer}") as advance:
            found = station.find(node, archive, wanted, advance)
        if dry_run:
            _list(found, json=json)
            return
        try:
            with locked(settings.data_dir / "pull.lock"), progress(f"pulling from {peer}") as advance:
                station.pull(node, archive, found, advance)
        except Locked as error:
            raise station.NotReceiving(f"another pull is under way (pid {error.pid})") from error
        finally:
            _print(found, peer, json=json)
    sys.exit(1 if found.failures else 0)


def _date(given: str, option: str) -> date:
    seconds = day(given, option)
    return datetime.fromtimestamp(seconds or 0.0, UTC).date()


def _filter(pattern: str) -> Callable[[str], bool]:
    from mediqa_node.pipeline.pull import description_filter

    try:
        return description_filter(pattern)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--description") from None


def _list(found: Pulled, *, json: bool) -> None:
    if json:
        as_json({"series": [asdict(one) for one in found.series], "n_here": found.n_here})
        return
    typer.echo(f"{count(len(found.series), 'series', 'series')} to pull, {found.n_here:,} here already")
    for one in found.series[:_SHOWN]:
        n = "?" if one.n_instances is None else f"{one.n_instances:,}"
        typer.echo(f"  {one.study_date}  {one.modality:<3} {n:>6}  {one.description or '(no description)'}")
    if len(found.series) > _SHOWN:
        typer.echo(f"  … and {len(found.series) - _SHOWN:,} more; `--json` lists all")


def _print(found: Pulled, peer: str, *, json: bool) -> None:
    """Print what was done so far, also where the pull ends in an error."""
    left = len(found.series) - found.n_pulled - len(found.failures)
    if json:
        numbers = {"n_pulled": found.n_pulled, "n_instances": found.n_instances, "n_here": found.n_here}
        as_json(numbers | {"n_left": left, "failures": found.failures})
        return
    pulled = f"{count(found.n_pulled, 'series', 'series')} pulled from {peer} ({count(found.n_instances, 'instance')})"
    typer.echo(f"{pulled}, {found.n_here:,} here already, {len(found.failures):,} failed, {left:,} left")
    for uid, why in list(found.failures.items())[:_SHOWN]:
        typer.echo(f"  {uid}: {why}")
