"""`mediqa-node annotations`: scores of experts come in, and how far their readers agree."""

import getpass
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from mediqa_node import logs
from mediqa_node.cli import app
from mediqa_node.cli.common import open_current_node
from mediqa_node.cli.present import count, finite, table
from mediqa_node.cli.progress import progress
from mediqa_node.composition import resources
from mediqa_node.domain.errors import RatingsRefused
from mediqa_node.exchange.rating_table import MAX_BYTES, Layout
from mediqa_node.pipeline.ratings import Outcome, StudyReport, report, take_in
from mediqa_node.reader_study.agreement import Agreement, Estimate
from mediqa_node.storage import ratings

annotations_app = typer.Typer(
    help="Take in scores of experts, and see how far their readers agree.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(annotations_app, name="annotations")

_PROBLEMS_SHOWN = 50
Json = Annotated[bool, typer.Option("--json", help="For machines.")]
By = Annotated[str | None, typer.Option(metavar="NAME", help="Who does this; else the login name.")]


@annotations_app.command("import")
def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV, UTF-8, commas or semicolons.", exists=True, dir_okay=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every row and import nothing.")] = False,
    readers: Annotated[
        list[str] | None,
        typer.Option("--reader", metavar="HEADING", help="A column of one reader's scores; once for each reader."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="NAME=HEADING", help="What a column is called in this file."),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--value", metavar="NAME=VALUE", help="What counts for every row, as scale_min=1."),
    ] = None,
    by: By = None,
    as_json: Json = False,
) -> None:
    """Import a table of ratings: all of it, or nothing and every problem by its row.

    One row is one rating: series_uid (or series_key of an export), reader_id, score, scale_min, scale_max,
    scale_direction (higher_better or lower_better), and if they are known criterion, study_id, session, repeat,
    sop_uid, read_at, experience_years, reader_group, display_window, confidence, usable, comment. With --reader one
    row is one series. The same file twice is imported once. Exit status 1 if a row is wrong.
    """
    logs.configure(level="ERROR")
    layout = Layout(readers=tuple(readers or ()), columns=_pairs(columns, "--column"), values=_pairs(values, "--value"))
    if file.stat().st_size > MAX_BYTES:
        raise RatingsRefused(f"{file} has {file.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read: split it")
    with open_current_node(context) as (settings, database):
        found = take_in(
            database,
            file.read_bytes(),
            layout,
            by=_name(by),
            at=time.time(),
            dry_run=dry_run,
            series_keys=resources.series_keys(settings),
        )
    if as_json:
        typer.echo(json.dumps(_plain(found, dry_run), indent=2))
    else:
        _print_outcome(found)
    sys.exit(bool(found.problems))


def _pairs(given: Sequence[str] | None, option: str) -> dict[str, str]:
    pairs = [text.partition("=") for text in given or ()]
    if wrong := [name for name, equals, value in pairs if not (name and equals and value)]:
        raise typer.BadParameter(f"{wrong[0]!r} must be NAME=SOMETHING", param_hint=option)
    return {name: value for name, _, value in pairs}


def _name(given: str | None) -> str:
    if given is not None and not 1 <= len(given.strip()) <= 64:
        raise typer.BadParameter("a name of 1 to 64 characters", param_hint="--by")
    try:
        return given.strip() if given is not None else getpass.getuser()[:64]
    except (KeyError, OSError, ImportError):  # a container whose user has no name
        raise typer.BadParameter("this user has no login name: say who you are", param_hint="--by") from None


def _print_outcome(found: Outcome) -> None:
    if found.problems:
        typer.echo(f"refused     {count(len(found.problems), 'problem')}; nothing was imported")
        shown = found.problems[:_PROBLEMS_SHOWN]
        table(("row", "problem"), [(str(problem.row), problem.text) for problem in shown])
        if more := len(found.problems) - len(shown):
            typer.echo(f"and {more:,} more; `--json` lists all")
        typer.echo("→ mend the file and import it again")
        return
    size = _size(found)
    if found.kept is not None and found.known:
        typer.echo(f"known       import {found.kept.id} of {_date(found.kept.imported_at)}, {size}; nothing was added")
    elif found.kept is not None:
        typer.echo(f"imported    {size}, as import {found.kept.id}")
    else:
        typer.echo(f"good        {size} would be imported")
    for note in found.notes:
        typer.echo(f"note        {note}")
    typer.echo("→ mediqa-node annotations report" if found.kept else "→ the same without --dry-run")


def _size(found: Outcome) -> str:
    rows = [rating for _, rating in found.table.rows]
    series, readers = {rating.series_instance_uid for rating in rows}, {rating.reader_id for rating in rows}
    return f"{count(len(rows), 'rating')} of {len(series):,} series by {count(len(readers), 'reader')}"


def _plain(found: Outcome, dry_run: bool) -> dict[str, object]:
    return {
        "imported": found.kept is not None and not found.known,
        "known": found.known,
        "dry_run": dry_run,
        "import": asdict(found.kept) if found.kept else None,
        "ratings": len(found.table.rows),
        "problems": [asdict(problem) for problem in found.problems],
        "notes": list(found.notes),
    }


@annotations_app.command("list")
def list_(context: typer.Context, as_json: Json = False) -> None:
    """List the tables that were imported."""
    with open_current_node(context) as (_, database), database.read() as connection:
        known = ratings.imports(connection)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in known], indent=2))
        return
    if not known:
        typer.echo("no ratings yet; `mediqa-node annotations import FILE` takes them in")
        return
    rows = [
        (
            str(one.id),
            _date(one.imported_at),
            one.imported_by,
            *(f"{n:,}" for n in (one.n_ratings, one.n_series, one.n_readers)),
            f"{_date(one.withdrawn_at)} by {one.withdrawn_by}" if one.withdrawn_at is not None else "",
        )
        for one in known
    ]
    table(("import", "when", "by", "ratings", "series", "readers", "withdrawn"), rows)


@annotations_app.command()
def withdraw(
    context: typer.Context,
    number: Annotated[int, typer.Argument(help="As `annotations list` says.")],
    by: By = None,
) -> None:
    """Let the rows of an import count no more: a wrong file, a scale the wrong way round. They stay on record."""
    name = _name(by)
    with open_current_node(context) as (_, database), database.write() as connection:
        done = ratings.withdraw(connection, number, by=name, at=time.time())
    if not done:
        typer.echo(f"no import {number} counts; `mediqa-node annotations list` names them", err=True)
        sys.exit(2)
    typer.echo(f"withdrawn   import {number} by {name}")


@annotations_app.command("report")
def report_(
    context: typer.Context,
    readers: Annotated[bool, typer.Option("--readers", help="Each reader too.")] = False,
    as_json: Json = False,
) -> None:
    """Say how far the readers agree, and how well a model could predict their mean at best.

    ICC with 95 % intervals from a bootstrap over patients. Exit status 1 without any ratings.
    """
    with open_current_node(context) as (settings, database), progress("reading") as advance:
        found = report(database, resources.open_spool(settings), advance=advance)
    if as_json:
        typer.echo(json.dumps(finite([asdict(one) for one in found]), indent=2))
    elif not found:
        typer.echo("no ratings yet; `mediqa-node annotations import FILE` takes them in")
    else:
        _print_report(found, readers=readers)
    sys.exit(not found)


def _print_report(found: Sequence[StudyReport], *, readers: bool) -> None:
    heads = (
        "study", "criterion", "series", "patients", "readers", "ICC(2,1)", "ICC(2,k)", "ICC(3,1)", "alpha",
        "SRCC", "ceiling", "MOS by",
    )  # fmt: skip
    table(heads, [(one.study_id or "–", one.criterion, *_cells(one.agreement), one.method) for one in found])
    for one in found:
        named = f"{one.study_id} {one.criterion}".strip()
        for warning in one.agreement.warnings:
            typer.echo(f"{named}: {warning}")
        if readers:
            _print_readers(named, one.agreement)
    typer.echo("SRCC: each reader with the mean of the others; ceiling: sqrt(ICC(3,k)), the PLCC to expect at best")
    if not readers:
        typer.echo("→ mediqa-node annotations report --readers")


def _cells(found: Agreement) -> tuple[str, ...]:
    return (
        *(f"{n:,}" for n in (found.n_series, found.n_patients, len(found.readers))),
        *(_estimate(icc) for icc in (found.icc_2_1, found.icc_2_k, found.icc_3_1)),
        *(_value(value) for value in (found.alpha, found.srcc, found.ceiling)),
    )


def _print_readers(named: str, found: Agreement) -> None:
    typer.echo(f"{named}:")
    rows = [
        (
            reader.reader_id,
            f"{reader.n_series:,}",
            f"{reader.bias:+.3f}",
            f"{reader.sd:.3f}",
            _value(reader.srcc),
            _value(reader.repeat_sd),
            "unlike the others" if reader.outlying else "",
        )
        for reader in found.readers
    ]
    table(("reader", "series", "bias", "SD", "SRCC", "repeat SD", ""), rows)


def _estimate(icc: Estimate) -> str:
    return f"{_value(icc.value)} ({_value(icc.low)} to {_value(icc.high)})"


def _value(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _date(at: float | None) -> str:
    return datetime.fromtimestamp(at or 0.0, UTC).strftime("%Y-%m-%d %H:%M UTC")
