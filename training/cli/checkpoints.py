"""`mediqa-train card`, `claim` and `pairs`: from a run to a checkpoint with claims."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.cli.present import table
from mediqa_node.domain.errors import ConfigurationError
from training.cli.app import app, progress, require, shown

if TYPE_CHECKING:
    from mediqa_node.model.card import Fusion
    from mediqa_node.model.checkpoint import Regressors
    from training.data.store import Store
    from training.fit.runs import Run

    Fused = tuple[Regressors, Mapping[str, Mapping[str, Fusion]], list[str]]


def store_of(folder: Path) -> "Store":
    """Open a store that exists."""
    from training.data.store import INDEX, Store

    if not (folder / INDEX).exists():
        raise ConfigurationError(f"{folder} is not a store (no {INDEX}); `mediqa-train simulate` makes one")
    return Store(folder)


def lock_of(checkpoint: Path) -> tuple[str, Path]:
    """Return the name and lock of the checkpoint in a folder, or of the shipped one by name."""
    from mediqa_node.model.lock import DEFAULT_LOCK, LOCK_FILE, only_entry, read_lock

    if not (checkpoint / LOCK_FILE).exists() and str(checkpoint) in read_lock():
        return str(checkpoint), DEFAULT_LOCK
    return only_entry(checkpoint / LOCK_FILE)[0], checkpoint / LOCK_FILE


@app.command()
def card(
    run: Annotated[Path, typer.Argument(help="Folder of a run of stage 2.")],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    data: Annotated[Path | None, typer.Option(help="The store that the run was trained on. Not with --plain.")] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Use the network alone, without regressors on statistics.")
    ] = False,
    fold: Annotated[
        list[Path] | None,
        typer.Option(
            help="Run of `finetune --leave-out`. The shares of network and statistics are chosen on the sources that "
            "it left out. May be repeated."
        ),
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            help="Copy regressors and shares from this checkpoint, trained on the same data with another seed, "
            "instead of fitting them."
        ),
    ] = None,
    domains: Annotated[Path | None, typer.Option(help="Training range: the JSON of `mediqa-train domain`.")] = None,
    name: Annotated[str, typer.Option(help="Name of the checkpoint.")] = "default",
    command: Annotated[str, typer.Option(help="Description of how the checkpoint was made. Written to the card.")] = "",
) -> None:
    """Make a checkpoint from a run: weights, regressors on statistics, their shares, card and lock."""
    from training.fit.checkpoint import make_card, provenance, write_checkpoint
    from training.fit.runs import read_run

    trained = read_run(run)
    if domains is not None and not domains.is_file():
        raise ConfigurationError(f"--domains {domains}: no such file; `mediqa-train domain` writes it")
    if beside is not None:
        regressors, fusion, choices = _of_another_seed(trained, beside)
    elif plain:
        regressors, fusion, choices = {}, {}, []
    elif data is not None:
        require("sklearn")
        regressors, fusion, choices = _fitted(trained, data, fold or [])
    else:
        raise ConfigurationError("regressors need the samples: give --data, or --plain for the network alone")
    made = make_card(
        trained,
        name=name,
        fusion=fusion,
        domains=domains,
        training_data=command or "See metrics.",
        metrics={"made_by": provenance(trained), "chosen": choices},
    )
    digest = write_checkpoint(out, run, made, regressors)
    for line in choices:
        typer.echo(line)
    typer.echo(f"wrote {out}: weights {digest[:16]}")
    typer.echo(
        f"→ mediqa-train evaluate STORE --sweep SWEEP --checkpoint {out} --out GATES, mediqa-train claim {out} --gates "
        f"GATES/gates.json, mediqa-node model pin {out}, then mediqa-node model promote {out} --by NAME"
    )


@app.command()
def claim(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a checkpoint (with models.lock).")],
    gates: Annotated[Path, typer.Option(help="The gates.json of `mediqa-train evaluate`.")],
) -> None:
    """Write the gates of a checkpoint and the claims that they allow into its card. Reports carry the claims."""
    from training.fit.checkpoint import claimed

    try:
        content = json.loads(gates.read_text(encoding="utf-8"), parse_constant=lambda _: None)  # older ones had NaN
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{gates} is not a gates.json of `mediqa-train evaluate`: {error}") from error
    claims = claimed(checkpoint, content)
    for modality, text in claims.items():
        typer.echo(f"{modality}  {text}")
    if not claims:
        typer.echo("no claims: these gates have no sweep; run `mediqa-train evaluate` with --sweep")
    typer.echo(f"→ mediqa-node model pin {checkpoint}")


def _of_another_seed(trained: "Run", folder: Path) -> "Fused":
    """Return regressors and shares of a checkpoint that was trained in the same units."""
    from mediqa_node.model.checkpoint import load_whole
    from training.evaluate.by_method import targets_of_card

    name, lock = lock_of(folder)
    _, card, regressors = load_whole(name, lock)
    if not set(targets_of_card(card)) <= set(trained.targets):
        raise ConfigurationError(f"--beside {folder}: its regressors were fitted in other units, on other data")
    return regressors, card.fusion, [f"regressors and shares of {name} {card.weights_sha256[:16]}"]


def _fitted(trained: "Run", data: Path, fold: list[Path]) -> "Fused":
    """Return regressors on statistics, the shares of network and statistics, and a line on each choice."""
    from training.fit.checkpoint import Fold, regressors_and_fusion
    from training.fit.runs import trained_network

    prepared = shown(store_of(data), trained.recipe.spec)
    sources = {sample.source for sample in prepared.samples if sample.split == "train"}
    folds = []
    for folder in fold:
        network, of_fold = trained_network(folder)
        unseen = frozenset(sources - of_fold.seen)
        folds.append(Fold(network=network, targets=of_fold.targets, unseen=unseen))
    with progress("regressors on statistics") as advance:
        return regressors_and_fusion(prepared, trained.targets, folds, advance=advance)


@app.command()
def pairs(
    folders: Annotated[
        list[Path], typer.Argument(help="Two folders for each pair: the same slices with two reconstruction kernels.")
    ],
    checkpoint: Annotated[Path, typer.Option(help="Folder of a checkpoint, or `default` for the shipped one.")] = Path(
        "default"
    ),
) -> None:
    """Compare two reconstructions of one acquisition slice by slice: noise and score."""
    from mediqa_node.model.predict import load_scorer
    from training.evaluate.pairs import HEADS, in_agreement, rows, slices_of

    if len(folders) % 2:
        raise ConfigurationError(f"{len(folders)} folders; give two for each pair")
    name, lock = lock_of(checkpoint)
    scorer = load_scorer(name, lock=lock)
    for one, other in zip(folders[::2], folders[1::2], strict=True):
        (first, left), (second, right) = slices_of(one, scorer), slices_of(other, scorer)
        typer.echo(f"{one.name} ({first.image_type}) | {other.name} ({second.image_type})")
        table(HEADS, rows(left, right))
        compared = min(len(left), len(right))
        typer.echo(f"the noisier slice has the lower score in {in_agreement(left, right)} of {compared}")
