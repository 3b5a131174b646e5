"""`mediqa-train classifier`: predict modality, region and type from one slice where headers leave them open."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.cli.present import table
from mediqa_node.domain.errors import ConfigurationError
from training.cli.app import CollectionManifest, app, progress

if TYPE_CHECKING:
    from mediqa_node.model.prompt_classifier import ClassifierCard, LoadedClassifier
    from training.data.manifest import Row
    from training.fit.classifier import Example, TermResult

_FOLDS = 5


@app.command()
def classifier(
    out: Annotated[Path, typer.Option(help="Folder for weights, card and lock file. It is created if missing.")],
    rows: Annotated[Path | None, typer.Option(help="Manifest of an export or of `adapt`.")] = None,
    collection: Annotated[
        Path | None, typer.Option(help="Collection of folders, as for `domain`, instead of --rows.")
    ] = None,
    manifest: CollectionManifest = None,
    shape: Annotated[str, typer.Option(help="Network: trunk, small, paper (ViT-B/16), vgg_small or vgg.")] = "small",
    beside: Annotated[
        list[str] | None,
        typer.Option(
            help="Network to evaluate on the same images for comparison; its weights are not written. May be repeated."
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Number of training steps, for each fold and for the final network.")
    ] = 300,
    seed: Annotated[int, typer.Option(help="Seed of initial weights, folds and draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Train a prompt classifier on prompts derived from headers, and evaluate it on held-out sources.

    The exit status is 1 if it is wrong more often than its stated confidence allows.
    """
    from training.fit.classifier import Recipe, fit_classifier, held_out, is_good_enough, results

    if not out.parent.is_dir():
        raise ConfigurationError(f"--out {out}: there is no folder {out.parent}")
    recipes = [Recipe(shape=one, steps=steps, seed=seed) for one in _checked((shape, *(beside or ())))]
    found = {}
    with progress("reading") as advance:
        examples = _examples(rows, collection, manifest, shape, lambda done: advance(done, 0, ""))
    total = steps * (_FOLDS * len(recipes) + 1)
    with progress("training") as advance:
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            advance(done, total, "")

        for recipe in recipes:
            found[recipe.shape] = results(held_out(examples, recipe, folds=_FOLDS, advance=step))
        fitted = fit_classifier(examples, recipes[0], advance=step)
    good = is_good_enough(found[shape], sure=recipes[0].sure)
    sources = sorted({one.source for one in examples})
    card = replace(
        fitted.card,
        name=out.name,
        training_data=f"{len(examples)} series of {len(sources)} sources: {', '.join(sources)}",
        metrics={"held_out": _plain(found)[shape], "seed": seed, "steps": steps},
    )
    _write(out, fitted, card)
    if as_json:
        typer.echo(json.dumps({"held_out": _plain(found), "earns_its_place": good}, indent=2))
    else:
        typer.echo(f"{len(examples)} series of {len(sources)} sources; no network has seen the sources it is tested on")
        for name, by_term in found.items():
            typer.echo(f"\n{name}")
            table(_HEADS, _cells(by_term))
        typer.echo(f"\nwrote {out}")
        typer.echo(_next(out, good))
    raise typer.Exit(code=0 if good else 1)


def _plain(found: "dict[str, dict[str, TermResult]]") -> dict[str, dict[str, object]]:
    return {name: {term: asdict(one) for term, one in by_term.items()} for name, by_term in found.items()}


def _checked(names: Sequence[str]) -> list[str]:
    """Return the distinct shapes; ConfigurationError if one is unknown or their image sizes differ."""
    from mediqa_node.model.prompt_classifier import SHAPES

    shapes = list(dict.fromkeys(names))
    if unknown := [one for one in shapes if one not in SHAPES]:
        raise ConfigurationError(f"unknown shape {unknown[0]!r}; known: {', '.join(SHAPES)}")
    if len({SHAPES[one].image_px for one in shapes}) > 1:
        sizes = ", ".join(f"{one} {SHAPES[one].image_px}" for one in shapes)
        raise ConfigurationError(f"--beside needs a shape that reads images of the same size, in pixels: {sizes}")
    return shapes


def _examples(
    rows: Path | None, collection: Path | None, manifest: Path | None, shape: str, advance: Callable[[int], None]
) -> "list[Example]":
    from training.fit.classifier import examples_of

    found = []
    for one in examples_of(_rows(rows, collection, manifest), shape):
        found.append(one)
        advance(len(found))
    if not found:
        raise ConfigurationError("no series with pixels that the node would score: nothing to train on")
    return found


def _rows(rows: Path | None, collection: Path | None, manifest: Path | None) -> "list[Row]":
    from training.data.collection import read_collection
    from training.data.manifest import read_manifest
    from training.fit.classifier import rows_of_sets

    if rows is not None and collection is None and manifest is None:
        return read_manifest(rows)
    if rows is None and collection is not None:
        return list(rows_of_sets(read_collection(collection, manifest)))
    raise ConfigurationError("give either --rows, or --collection with an optional --manifest")


def _write(out: Path, fitted: "LoadedClassifier", card: "ClassifierCard") -> None:
    from mediqa_node.model.lock import write_lock
    from mediqa_node.model.prompt_classifier import save_classifier

    write_lock(out, out.name, save_classifier(out, fitted.network, card))


_HEADS = ("term", "series", "sources", "unseen", "accuracy", "usual", "confident", "accuracy when confident")


def _cells(by_term: "dict[str, TermResult]") -> list[tuple[str, ...]]:
    return [
        (
            term,
            *(str(count) for count in (one.n, one.sources, one.unseen)),
            str(one.accuracy),
            f"{one.usual:.3f}",
            str(one.sure),
            str(one.right),
        )
        for term, one in by_term.items()
    ]


def _next(out: Path, good: bool) -> str:
    if good:
        return f"→ add the entry of {out}/models.lock to the node's lock, and set model.classifier: {out.name}"
    return "→ leave model.classifier at null: when confident it is not right as often as the node would claim"
