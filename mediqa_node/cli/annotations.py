"""`mediqa-node annotations`: import the ratings of human readers and report how well they agree."""

from __future__ import annotations

import getpass
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import open_node, quiet
from mediqa_node.cli.options import Commands, Json
from mediqa_node.cli.present import as_json, count, date, fact, table
from mediqa_node.cli.progress import progress
from mediqa_node.domain.errors import RatingsRefused

if TYPE_CHECKING:
    from mediqa_node.pipeline.ratings import Outcome, StudyReport
    from mediqa_node.reader_study.agreement import Agreement, Estimate

annotations_app = typer.Typer(
    cls=Commands, help="Import ratings and report reader agreement.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(annotations_app, name="annotations")

_PROBLEMS_SHOWN = 50
By = Annotated[str | None, typer.Option(metavar="NAME", help="Name to record. The default is the login name.")]


@annotations_app.command("import")
def import_(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="CSV file in UTF-8, with commas or semicolons.", exists=True, dir_okay=False
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every row without importing anything.")] = False,
    readers: Annotated[
        list[str] | None,
        typer.Option(
            "--reader", metavar="HEADING", help="Column with the ratings of one reader. Repeat it for each reader."
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="NAME=HEADING", help="Name of a column in this file."),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--value", metavar="NAME=VALUE", help="Value for every row, such as scale_min=1."),
    ] = None,
    by: By = None,
    json: Json = False,
) -> None:
    """Import a table of ratings, as a whole or not at all.

    One row is one rating: series_uid (or the series_key of an export), reader_id, score, scale_min, scale_max,
    scale_direction (higher_better or lower_better), and optionally criterion, study_id, session, repeat, sop_uid,
    read_at, experience_years, reader_group, display_window, confidence, usable, comment. With --reader, one row is
    one series. A file that was imported before is not imported again. The exit status is 1 if a row has a problem.
    """
    from mediqa_node.composition import resources
    from mediqa_node.exchange.rating_table import MAX_BYTES, Layout
    from mediqa_node.pipeline.ratings import take_in

    quiet()
    layout = Layout(readers=tuple(readers or ()), columns=_pairs(columns, "--column"), values=_pairs(values, "--value"))
    if file.stat().st_size > MAX_BYTES:
        raise RatingsRefused(
            f"{file} has {file.stat().st_size:,} bytes; at most {MAX_BYTES:,} can be read; split the file"
        )
    with open_node(context) as (settings, database):
        found = take_in(
            database,
            file.read_bytes(),
            layout,
            by=_name(by),
            at=time.time(),
            dry_run=dry_run,
            series_keys=resources.series_keys(settings),
        )
    if json:
        as_json(_plain(found, dry_run))
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
        raise typer.BadParameter("must have 1 to 64 characters", param_hint="--by")
    try:
        return given.strip() if given is not None else getpass.getuser()[:64]
    except (KeyError, OSError, ImportError):  # a container whose user has no name
        raise typer.BadParameter("this user has no login name; give a name", param_hint="--by") from None


def _print_outcome(found: Outcome) -> None:
    if found.problems:
        fact("refused", f"{count(len(found.problems), 'problem')}; nothing was imported")
        shown = found.problems[:_PROBLEMS_SHOWN]
        table(("row", "problem"), [(str(problem.row), problem.text) for problem in shown])
        if more := len(found.problems) - len(shown):
            typer.echo(f"and {more:,} more; `--json` lists all")
        typer.echo("→ correct the file and import it again")
        return
    size = _size(found)
    if found.kept is not None and found.known:
        fact("known", f"import {found.kept.id} of {date(found.kept.imported_at)}, {size}; nothing was added")
    elif found.kept is not None:
        fact("imported", f"{size}, as import {found.kept.id}")
    else:
        fact("good", f"{size} would be imported")
    for note in found.notes:
        fact("note", note)
    typer.echo("→ mediqa-node annotations report" if found.kept else "→ repeat without --dry-run")


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
def list_(context: typer.Context, json: Json = False) -> None:
    """List the imported tables."""
    from mediqa_node.storage import ratings

    with open_node(context) as (_, database), database.read() as connection:
        known = ratings.imports(connection)
    if json:
        as_json([asdict(one) for one in known])
        return
    if not known:
        typer.echo("no ratings yet; `mediqa-node annotations import FILE` imports them")
        return
    rows = [
        (
            str(one.id),
            date(one.imported_at),
            one.imported_by,
            *(f"{n:,}" for n in (one.n_ratings, one.n_series, one.n_readers)),
            f"{date(one.withdrawn_at)} by {one.withdrawn_by}" if one.withdrawn_at is not None else "",
        )
        for one in known
    ]
    table(("import", "when", "by", "ratings", "series", "readers", "withdrawn"), rows)


@annotations_app.command()
def withdraw(
    context: typer.Context,
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="Number of the import in `annotations list`.")],
    by: By = None,
) -> None:
    """Exclude the ratings of an import from now on.

    Use it after importing a wrong file or a reversed scale. The rows stay on record.
    """
    from mediqa_node.storage import ratings

    name = _name(by)
    with open_node(context) as (_, database), database.write() as connection:
        done = ratings.withdraw(connection, number, by=name, at=time.time())
    if not done:
        typer.echo(f"no import {number} is in use; `mediqa-node annotations list` lists them", err=True)
        sys.exit(2)
    fact("withdrawn", f"import {number} by {name}")


@annotations_app.command("report")
def report_(
    context: typer.Context,
    readers: Annotated[bool, typer.Option("--readers", help="Also print each reader.")] = False,
    json: Json = False,
) -> None:
    """Report how well the readers agree.

    Prints ICC with 95 % intervals from a bootstrap over patients, Krippendorff's alpha, the rank correlation of each
    reader with the others, and the highest PLCC that a model can be expected to reach. The exit status is 1 if there
    are no ratings.
    """
    from mediqa_node.composition import resources
    from mediqa_node.pipeline.ratings import report

    with open_node(context) as (settings, database), progress("reading") as advance:
        found = report(database, resources.open_spool(settings), advance=advance)
    if json:
        as_json([asdict(one) for one in found])
    elif not found:
        typer.echo("no ratings yet; `mediqa-node annotations import FILE` imports them")
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
    typer.echo("SRCC: mean over the readers, each against the mean of the others")
    typer.echo("ceiling: sqrt(ICC(3,k)), the highest PLCC that a model can be expected to reach")
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
            "differs from the others" if reader.outlying else "",
        )
        for reader in found.readers
    ]
    table(("reader", "series", "bias", "SD", "SRCC", "repeat SD", ""), rows)


def _estimate(icc: Estimate) -> str:
    return f"{_value(icc.value)} ({_value(icc.low)} to {_value(icc.high)})"


def _value(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
