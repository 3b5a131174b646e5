"""`mediqa-train classifier`: modality, region and type from one slice, for what headers leave open."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.domain.errors import ConfigurationError
from training.cli.app import app, progress

if TYPE_CHECKING:
    from mediqa_node.model.prompt_classifier import ClassifierCard, LoadedClassifier
    from training.data.manifest import Row
    from training.fit.classifier import Example, TermResult

_FOLDS = 5


@app.command()
def classifier(
    out: Annotated[Path, typer.Option(help="Folder for weights, card and lock file; made if missing.")],
    rows: Annotated[Path | None, typer.Option(help="Manifest of an export or of `adapt`.")] = None,
    collection: Annotated[Path | None, typer.Option(help="Or a folder of folders, as for `domain`;")] = None,
    manifest: Annotated[Path | None, typer.Option(help="with its JSON.")] = None,
    shape: Annotated[str, typer.Option(help="small, paper (ViT-B/16), vgg_small or vgg.")] = "small",
    beside: Annotated[
        list[str] | None, typer.Option(help="Another shape for images of this size, judged only.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of training, for each fold and for the final network.")] = 300,
    seed: Annotated[int, typer.Option()] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Teach a prompt classifier from headers and judge it on sources that it has not seen.

    Exit status 1 where it does not earn its place: sure of what is wrong more often than it would claim.
    """
    from training.fit.classifier import Recipe, earns_its_place, held_out, results, teach

    if not out.parent.is_dir():
        raise ConfigurationError(f"--out {out}: there is no folder {out.parent}")
    recipes = [Recipe(shape=one, steps=steps, seed=seed) for one in dict.fromkeys((shape, *(beside or ())))]
    _check_shapes([recipe.shape for recipe in recipes])
    found = {}
    with progress("reading") as advance:
        examples = _examples(rows, collection, manifest, shape, lambda done: advance(done, 0, ""))
    total = steps * (_FOLDS * len(recipes) + 1)
    with progress("teaching") as advance:
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            advance(done, total, "")

        for recipe in recipes:
            found[recipe.shape] = results(held_out(examples, recipe, folds=_FOLDS, advance=step))
        taught = teach(examples, recipes[0], advance=step)
    earned = earns_its_place(found[shape], sure=recipes[0].sure)
    sources = sorted({one.source for one in examples})
    card = replace(
        taught.card,
        name=out.name,
        training_data=f"{len(examples)} series of {len(sources)} sources: {', '.join(sources)}",
        metrics={"held_out": {term: asdict(one) for term, one in found[shape].items()}, "seed": seed, "steps": steps},
    )
    _write(out, taught, card)
    if as_json:
        plain = {name: {term: asdict(one) for term, one in by_term.items()} for name, by_term in found.items()}
        typer.echo(json.dumps({"held_out": plain, "earns_its_place": earned}, indent=2))
    else:
        typer.echo(f"{len(examples)} series of {len(sources)} sources, each judged by networks that had not seen it")
        for name, by_term in found.items():
            _print(name, by_term)
        typer.echo(f"wrote       {out}")
        typer.echo(_next(out, earned))
    raise typer.Exit(code=0 if earned else 1)


def _check_shapes(shapes: list[str]) -> None:
    from mediqa_node.model.prompt_classifier import SHAPES

    if unknown := [one for one in shapes if one not in SHAPES]:
        raise ConfigurationError(f"unknown shape {unknown[0]!r}; known: {', '.join(SHAPES)}")
    if len({SHAPES[one].image_px for one in shapes}) > 1:
        sizes = ", ".join(f"{one} {SHAPES[one].image_px}" for one in shapes)
        raise ConfigurationError(f"--beside needs a shape that reads images of the same size, in pixels: {sizes}")


def _examples(
    rows: Path | None, collection: Path | None, manifest: Path | None, shape: str, advance: Callable[[int], None]
) -> "list[Example]":
    from training.fit.classifier import examples_of

    found = []
    for one in examples_of(_rows(rows, collection, manifest), shape):
        found.append(one)
        advance(len(found))
    if not found:
        raise ConfigurationError("no series with pixels that the node would look at: nothing to learn from")
    return found


def _rows(rows: Path | None, collection: Path | None, manifest: Path | None) -> "list[Row]":
    from training.data.collection import read_manifest as read_collection
    from training.data.manifest import read_manifest
    from training.fit.classifier import rows_of_sets

    if rows is not None and collection is None and manifest is None:
        return read_manifest(rows)
    if rows is None and collection is not None and manifest is not None:
        return list(rows_of_sets(read_collection(collection, manifest)))
    raise ConfigurationError("give either --rows, or --collection with --manifest")


def _write(out: Path, taught: "LoadedClassifier", card: "ClassifierCard") -> None:
    from mediqa_node.model.lock import write_lock
    from mediqa_node.model.prompt_classifier import save_classifier

    write_lock(out, out.name, save_classifier(out, taught.network, card))


def _print(name: str, by_term: "dict[str, TermResult]") -> None:
    heads = f"{'series':>7}{'sources':>9}{'unseen':>8}  {'accuracy':22}{'usual':>7}{'sure of':>9}  right then"
    typer.echo(f"\n{name:12}{heads}")
    for term, one in by_term.items():
        counts = f"{one.n:7}{one.sources:9}{one.unseen:8}"
        typer.echo(f"{term:12}{counts}  {one.accuracy!s:22}{one.usual:7.3f}{one.sure:9}  {one.right}")
    typer.echo("")


def _next(out: Path, earned: bool) -> str:
    if earned:
        return f"→ add the entry of {out}/models.lock to the node's lock, and set model.classifier: {out.name}"
    return "→ leave model.classifier at null: where it is sure, it is not right as often as the node would claim"
