"""`mediqa-train domain`: the training range of a checkpoint, outside of which images are not scored."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.cli.present import table
from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.model.card import read_card
from training.cli.app import CollectionManifest, app, progress
from training.fit.recipe import STAGE2, read_recipe

if TYPE_CHECKING:
    from training.fit.training_range import Outcome


@app.command()
def domain(
    collection: Annotated[
        Path, typer.Option(help="Folder with a folder of DICOM series or photographs for each source.")
    ],
    out: Annotated[Path, typer.Option(help="File to write: the training range as JSON, by modality.")],
    manifest: CollectionManifest = None,
    card: Annotated[
        Path | None, typer.Option(help="Card with the preprocessing to use. Default: that of the preset `default`.")
    ] = None,
) -> None:
    """Fit the training range of a checkpoint; a node does not score images outside of it (NOT_SCORED).

    One folder is one source, or one fold of the manifest. Each source is held out once, to count how many of its
    patients would be refused. Sets with split `refuse` are only used for testing.
    """
    from training.data.collection import read_collection
    from training.fit.training_range import fit_training_ranges, held_out, measure, of_refused

    if not out.parent.is_dir():
        raise ConfigurationError(f"--out {out}: there is no folder {out.parent}")
    spec = read_card(_read(card)).preprocess if card else read_recipe(STAGE2, "default").spec
    sets = read_collection(collection, manifest)
    with progress("measuring") as advance:
        measured = measure(sets, spec, advance=advance)
    domains = fit_training_ranges(measured, spec)
    out.write_text(json.dumps({name: asdict(one) for name, one in domains.items()}, indent=1) + "\n", encoding="utf-8")
    outcomes = [*held_out(measured, spec), *of_refused(measured, domains)]
    table(_HEADS, list(_rows(outcomes)))
    for one in measured:
        if one.belongs_to.split == "dev" and one.refused:
            typer.echo(f"not fitted on: {one.belongs_to.name}: {one.refused}")
    fitted = ", ".join(f"{name} from {one.sources} sources" for name, one in domains.items())
    typer.echo(f"\nwrote {out}: {fitted}")
    typer.echo(f"→ mediqa-train card RUN --domains {out} …")


_HEADS = ("", "", "set", "stacks", "refused", "distance", "worse copies refused; why")


def _rows(outcomes: "Sequence[Outcome]") -> Iterator[tuple[str, ...]]:
    """Yield a row for each set: patients against limits fitted without them, then the sets that must be refused."""
    by_set: dict[tuple[str, str, str], list[Outcome]] = {}
    for one in outcomes:
        of = one.measured
        by_set.setdefault((of.modality, of.belongs_to.split, of.belongs_to.name), []).append(one)
    for (modality, split, name), ones in by_set.items():
        refused = sum(one.verdict is not None for one in ones)
        worst = max(one.ratio for one in ones)
        kind = "patient" if split == "dev" else "foreign"
        yield modality, kind, name, str(len(ones)), str(refused), f"{worst:.2f}", _remark(ones)


def _remark(ones: "Sequence[Outcome]") -> str:
    copies, refused = sum(len(one.measured.worse) for one in ones), sum(one.worse_refused for one in ones)
    why = next((one.verdict for one in ones if one.verdict), None)
    header = next((one.measured.refused for one in ones if one.measured.refused), None)
    parts = (f"{refused} of {copies}" if copies else None, why, header and f"refused by its headers: {header}")
    return "; ".join(part for part in parts if part)


def _read(card: Path) -> bytes:
    try:
        return card.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"--card {card} cannot be read: {error.strerror}") from error
