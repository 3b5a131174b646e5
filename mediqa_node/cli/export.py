"""`mediqa-node export`: write labels, and on request pixels, as a pseudonymised dataset for training."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import open_node, quiet
from mediqa_node.cli.options import Json
from mediqa_node.cli.present import as_json, count, fact, size
from mediqa_node.cli.progress import progress
from mediqa_node.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from mediqa_node.domain.export import ExportRequest, ExportSummary, Payload


@app.command()
def export(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="Folder to write. It appears only once it is complete.")],
    payload: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="Pixels to include: refs (none), npz (salient slices), dicom (de-identified) or nifti. "
            "The default is refs.",
            show_default=False,
        ),
    ] = "refs",
    modality: Annotated[
        list[str] | None, typer.Option(metavar="MODALITY", help="CT, MR or OP. Repeat it for several.")
    ] = None,
    scanner: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Station name, model or AE title, with * and ?. Repeat it for several."),
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="First study date to include.")] = None,
    until: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Last study date to include.")] = None,
    eligible: Annotated[
        bool,
        typer.Option(
            "--eligible/--all",
            help="Only series fit for training (with a label or ratings), or all that can be scored. "
            "The default is --eligible.",
            show_default=False,
        ),
    ] = True,
    faces: Annotated[
        bool,
        typer.Option("--faces", help="Include heads as dicom or nifti, although a face can be rendered from them."),
    ] = False,
    store: Annotated[bool, typer.Option("--store", help="Also copy it to `export.store`, an object store.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing export.")] = False,
    json: Json = False,
) -> None:
    """Write a pseudonymised dataset for training.

    The folder contains a manifest, slices, splits, the reason why each series was left out, and checksums. It holds no
    name, identifier, date or private element.
    """
    from mediqa_node.domain.export import ExportRequest

    request = ExportRequest(
        payload=_payload(payload),
        modalities=tuple(_modality(name) for name in modality or ()),
        scanners=tuple(scanner or ()),
        since=_day(since, "--since"),
        until=_day(until, "--until"),
        eligible_only=eligible,
        faces=faces,
    )
    found, copied = _write(context, request, out, force=force, store=store)
    if json:
        as_json(found.as_dict())
    else:
        _print(found)
        if copied is not None:
            fact("copied", f"to {copied}")


def _write(
    context: typer.Context, request: ExportRequest, out: Path, *, force: bool, store: bool
) -> tuple[ExportSummary, str | None]:
    """Write an export and, if that is asked for, copy it to the store; return where it is there."""
    from mediqa_node.composition import resources
    from mediqa_node.exchange.object_store import copy_to_store
    from mediqa_node.pipeline.export.export import export as write

    quiet()
    with open_node(context) as (settings, database):
        if store and settings.export.store is None:
            raise ConfigurationError("--store copies to `export.store`, which the configuration does not name")
        source = resources.export_source(settings, database)
        with progress("exporting") as advance:
            found = write(source, request, out, replace=force, advance=lambda _, done, total: advance(done, total))
        if not store or settings.export.store is None:
            return found, None
        with progress("copying") as advance:
            return found, copy_to_store(out, settings.export.store, advance=advance)


def _print(found: ExportSummary) -> None:
    from mediqa_node.domain.export import in_words
    from mediqa_node.exchange.splits import PATIENTS_FOR_EVERY_SPLIT

    size_of_it = size(found.n_bytes)
    fact(
        "exported", f"{count(found.n_series, 'series', 'series')} of {count(found.n_patients, 'patient')}, {size_of_it}"
    )
    fact("splits", ", ".join(f"{split} {n}" for split, n in found.splits.items()))
    reasons: Counter[str] = Counter()
    for codes, n in found.reasons.items():
        reasons[in_words(codes)] += n
    for i, (words, n) in enumerate(reasons.most_common()):
        fact("left out" if i == 0 else "", f"{n:,}: {words}")
    if not reasons:
        fact("left out", "nothing")
    fact("export", found.export_id[:16])
    if empty := [split for split, n in found.splits.items() if not n]:
        fact(
            "note",
            f"{' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty: "
            "each patient is assigned to a split at random, once and for all. "
            f"With {PATIENTS_FOR_EVERY_SPLIT} patients or more every split is filled in 19 of 20 exports",
        )
    typer.echo(f"→ {found.folder / 'README.md'} describes the content, excluded.csv what was left out")


def _payload(name: str) -> Payload:
    from mediqa_node.domain.export import Payload

    for known in get_args(Payload):
        if name.lower() == known:
            found: Payload = known
            return found
    raise typer.BadParameter(f"{name!r}: must be one of {', '.join(get_args(Payload))}", param_hint="--payload")


def _modality(name: str) -> str:
    from mediqa_node.domain.prompt import MODALITIES

    if name.upper() not in MODALITIES:
        raise typer.BadParameter(f"{name!r}: must be one of {', '.join(MODALITIES)}", param_hint="--modality")
    return name.upper()


def _day(given: str | None, option: str) -> date | None:
    try:
        return datetime.strptime(given, "%Y-%m-%d").date() if given else None  # noqa: DTZ007 (a day has no time zone)
    except ValueError:
        raise typer.BadParameter(f"{given!r}: must be a day such as 2026-11-30", param_hint=option) from None
