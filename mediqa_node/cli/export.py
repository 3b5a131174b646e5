"""`mediqa-node export`: harvested labels, and pixels if asked for, under pseudonyms, in a folder for training."""

import json
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, get_args

import typer

from mediqa_node import logs
from mediqa_node.cli import app
from mediqa_node.cli.common import open_current_node
from mediqa_node.cli.present import count, size
from mediqa_node.cli.progress import progress
from mediqa_node.composition import resources
from mediqa_node.domain.export import ExportRequest, ExportSummary, Payload
from mediqa_node.domain.prompt import MODALITIES


@app.command()
def export(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="Folder to write; it appears when it is whole.")],
    payload: Annotated[
        str, typer.Option(help="refs: no pixels leave; dicom: de-identified; nifti; npz: salient slices for training.")
    ] = "refs",
    modality: Annotated[list[str] | None, typer.Option(help="CT, MR or OP; may be given again.")] = None,
    scanner: Annotated[
        list[str] | None, typer.Option(help="Station name, model or AE title, with * and ?; may be given again.")
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="First study date.")] = None,
    until: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Last study date.")] = None,
    eligible: Annotated[
        bool,
        typer.Option(
            "--eligible/--all", help="Fit for training (a label, or scores of experts), or all that may be scored."
        ),
    ] = True,
    faces: Annotated[
        bool, typer.Option("--faces", help="Let volumes of heads leave as dicom or nifti: a face can be rendered.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an export that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Write what was harvested as a dataset: manifest, slices, splits, reasons, checksums.

    No name, identifier, date or private element leaves.
    """
    from mediqa_node.pipeline.export.export import export as write

    request = ExportRequest(
        payload=_payload(payload),
        modalities=tuple(_modality(name) for name in modality or ()),
        scanners=tuple(scanner or ()),
        since=_day(since, "--since"),
        until=_day(until, "--until"),
        eligible_only=eligible,
        faces=faces,
    )
    logs.configure(level="ERROR")
    with open_current_node(context) as (settings, database), progress("exporting") as advance:
        source = resources.export_source(settings, database)
        found = write(source, request, out, replace=force, advance=lambda _, done, total: advance(done, total))
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=2))
    else:
        _print(found)


def _print(found: ExportSummary) -> None:
    splits = ", ".join(f"{split} {n}" for split, n in found.splits.items())
    reasons = ", ".join(f"{reason} {n}" for reason, n in found.reasons.items())
    for name, text in (
        ("exported", f"{count(found.n_series, 'series', 'series')} of {count(found.n_patients, 'patient')}, "
                     f"{size(found.n_bytes)}"),
        ("splits", splits),
        ("left out", reasons or "nothing"),
        ("export", found.export_id[:16]),
    ):  # fmt: skip
        typer.echo(f"{name:<12}{text}")
    if empty := [split for split, n in found.splits.items() if not n]:
        typer.echo(
            f"no patient has drawn {' or '.join(empty)}, as happens with few; the draw of a patient never changes"
        )
    typer.echo(f"→ {found.folder / 'README.md'} says what is in it")


def _payload(name: str) -> Payload:
    for known in get_args(Payload):
        if name.lower() == known:
            found: Payload = known
            return found
    raise typer.BadParameter(f"{name!r} is none of {', '.join(get_args(Payload))}", param_hint="--payload")


def _modality(name: str) -> str:
    if name.upper() not in MODALITIES:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(MODALITIES)}", param_hint="--modality")
    return name.upper()


def _day(said: str | None, option: str) -> date | None:
    try:
        return datetime.strptime(said, "%Y-%m-%d").date() if said else None  # noqa: DTZ007 (a day has no time zone)
    except ValueError:
        raise typer.BadParameter(f"{said!r} is no day like 2026-11-30", param_hint=option) from None
