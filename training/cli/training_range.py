"""`mediqa-train domain`: the limits beyond which a checkpoint refuses to speak."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.model.card import DEFAULT_PREPROCESSING, read_card
from training.cli.app import app, progress
from training.data.collection import read_manifest
from training.fit.training_range import Outcome, fit_training_ranges, held_out, measure, of_refused


@app.command()
def domain(
    collection: Annotated[Path, typer.Option(help="Folder of folders of DICOM series or photographs.")],
    manifest: Annotated[Path, typer.Option(help="JSON: items with id (folder) and split; same_fold. Looked at first.")],
    out: Annotated[Path, typer.Option(help="Where to write the domains, JSON by modality.")],
    card: Annotated[
        Path | None, typer.Option(help="Card whose preprocessing the images get; else that of new checkpoints.")
    ] = None,
) -> None:
    """Fit the domains of a checkpoint: what lies outside of what it was trained on ends as NOT_SCORED.

    One folder is one source, or one fold of the manifest. Every source is held out once, to say how many patients
    would be refused; sets of split `refuse` are not learnt from, only tried.
    """
    if not out.parent.is_dir():
        raise ConfigurationError(f"--out {out}: there is no folder {out.parent}")
    spec = read_card(_read(card)).preprocess if card else DEFAULT_PREPROCESSING
    sets = read_manifest(collection, manifest)
    with progress("measuring") as advance:
        measured = measure(sets, spec, advance=advance)
    domains = fit_training_ranges(measured, spec)
    out.write_text(json.dumps({name: asdict(one) for name, one in domains.items()}, indent=1) + "\n", encoding="utf-8")
    outcomes = [*held_out(measured, spec), *of_refused(measured, domains)]
    for line in _table(outcomes):
        typer.echo(line)
    for one in measured:
        if one.belongs_to.split == "dev" and one.refused:
            typer.echo(f"not learnt from: {one.belongs_to.name}: {one.refused}")
    said = ", ".join(f"{name} from {one.sources} sources" for name, one in domains.items())
    typer.echo(f"\nwrote {out}: {said}")
    typer.echo("→ put its content into the card as `domains`, and pin the card's new SHA-256 in the model lock")


def _table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield a line for each set: patients, each under limits learnt without them, then what must be refused."""
    by_set: dict[tuple[str, str, str], list[Outcome]] = {}
    for one in outcomes:
        of = one.measured
        by_set.setdefault((of.modality, of.belongs_to.split, of.belongs_to.name), []).append(one)
    yield f"{'':11}{'set':34}{'stacks':>6}{'refused':>9}{'distance':>10}  worse copies refused; why"
    for (modality, split, name), ones in by_set.items():
        refused = sum(one.verdict is not None for one in ones)
        worst = max(one.ratio for one in ones)
        kind = "patient" if split == "dev" else "foreign"
        yield f"{modality:3}{kind:8}{name:34}{len(ones):6}{refused:9}{worst:10.2f}  {_remark(ones)}"


def _remark(ones: Sequence[Outcome]) -> str:
    copies, refused = sum(len(one.measured.worse) for one in ones), sum(one.worse_refused for one in ones)
    why = next((one.verdict for one in ones if one.verdict), None)
    header = next((one.measured.refused for one in ones if one.measured.refused), None)
    parts = (f"{refused} of {copies}" if copies else None, why, header and f"headers say {header}")
    return "; ".join(part for part in parts if part)


def _read(card: Path) -> bytes:
    try:
        return card.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"--card {card} cannot be read: {error.strerror}") from error
