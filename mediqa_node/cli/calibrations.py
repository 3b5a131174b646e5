"""`mediqa-node calibrations`: which scores a verdict rests on."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import open_node
from mediqa_node.cli.options import Commands, Json
from mediqa_node.cli.present import as_json, date, table

if TYPE_CHECKING:
    from mediqa_node.storage.calibrations import Record

calibrations_app = typer.Typer(
    cls=Commands, help="List the calibrations that verdicts rest on.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(calibrations_app, name="calibrations")


@calibrations_app.callback()
def _calibrations() -> None:
    """Keep `list` a command of its own."""


@calibrations_app.command("list")
def list_(context: typer.Context, json: Json = False) -> None:
    """List the calibrations with their thresholds.

    They are made and approved on the page Calibrations of the workbench. Those of the configuration are imported
    once, when the node is prepared; the database decides from then on.
    """
    from mediqa_node.storage import calibrations

    with open_node(context) as (_, database), database.read() as connection:
        known = calibrations.every(connection)
    if json:
        as_json([asdict(one.calibration) | _history(one) for one in known])
        return
    if not known:
        typer.echo("no calibrations yet: scores are reported without a verdict")
        typer.echo("→ make one on the page Calibrations, from a reading study")
        return
    heads = ("id", "modality", "scanner", "protocol", "look below", "repeat below", "series", "readers", "state")
    table(heads, [_row(one) for one in known])


def _row(one: Record) -> tuple[str, ...]:
    of = one.calibration
    limits = (f"{100 * of.borderline_below:.1f}", f"{100 * of.review_below:.1f}")
    return (
        of.id,
        of.modality,
        of.station_name,
        of.protocol_name,
        *limits,
        str(of.n_series),
        str(of.n_readers),
        _state(one),
    )


def _state(one: Record) -> str:
    if one.withdrawn_at is not None:
        return f"withdrawn {date(one.withdrawn_at)} by {one.withdrawn_by}: {one.withdrawn_why}"
    if one.approved_at is None:
        return f"waits for approval, made by {one.made_by}"
    return f"approved {one.calibration.approved_on} by {one.calibration.approved_by}"


def _history(one: Record) -> dict[str, object]:
    names = ("source", "study_id", "made_at", "made_by", "approved_at", "approved_role", "withdrawn_at",
             "withdrawn_by", "withdrawn_why")  # fmt: skip
    return {"is_active": one.is_active, **{name: getattr(one, name) for name in names}}
