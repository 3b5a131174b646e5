"""`mediqa-node model shadow | compare`: score with a candidate as well, and compare it with the active checkpoint."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from mediqa_node.cli.common import open_node, quiet
from mediqa_node.cli.model import model_app
from mediqa_node.cli.options import Json
from mediqa_node.cli.present import as_json, count, fact, table
from mediqa_node.cli.progress import progress
from mediqa_node.cli.promotion import By, Name, Reason, decision_of
from mediqa_node.domain.promotion import ShadowScore, Weights


@model_app.command()
def shadow(
    context: typer.Context,
    source: Annotated[
        str | None, typer.Argument(metavar="DIR_OR_NAME", help="The candidate, as in `model promote`.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Stop scoring with the candidate.")] = False,
    by: By = "",
    reason: Reason = "",
    name: Name = None,
) -> None:
    """Score with a candidate checkpoint as well.

    The candidate scores each series after the active checkpoint, from the next series on. None of its scores is sent.
    """
    from mediqa_node.composition import checkpoints
    from mediqa_node.pipeline.checkpoints import promote

    if (source is None) != off:
        raise typer.BadParameter("name a candidate, or --off")
    quiet()
    if source is not None:
        with open_node(context) as (settings, _):
            checkpoints.find_checkpoint(settings, source)
    who = decision_of(by, reason)
    with open_node(context) as (settings, database), progress("loading"):
        candidate = checkpoints.take_into_store(settings, source, name)[0].weights if source is not None else None
        made = promote.set_shadow(database, candidate, configured=checkpoints.configured(settings), who=who)
    if made.after is None:
        fact("ended", f"{made.before.label if made.before else '–'} no longer scores")
    else:
        fact("in shadow", f"{made.after.label}: scores each series too, nothing is sent")
    typer.echo("→ mediqa-node model compare")


@model_app.command()
def compare(context: typer.Context, json: Json = False) -> None:
    """Compare the candidate with the active checkpoint.

    Prints one row for each scanner; differences are candidate - active. Without a candidate the last one is compared.
    The exit status is 1 while there is nothing to compare.
    """
    from mediqa_node.storage import promotions

    with open_node(context) as (_, database), database.read() as connection:
        candidate = promotions.standing(connection).shadow or promotions.last_shadowed(connection)
        scores = promotions.shadow_of(connection, candidate) if candidate is not None else []
    rows = _compared(scores)
    if json:
        as_json({"candidate": asdict(candidate) if candidate else None, "scanners": rows})
    elif candidate is None:
        typer.echo("no candidate yet; `mediqa-node model shadow DIR_OR_NAME --by NAME` sets one")
    elif not scores:
        typer.echo(f"{candidate.label} has scored no series yet")
    else:
        _print_compared(candidate, rows, scores)
    sys.exit(not scores)


def _compared(scores: Sequence[ShadowScore]) -> list[dict[str, object]]:
    """Return the comparison for each scanner, modality and active checkpoint."""
    import numpy as np

    from mediqa_node.reader_study import comparison

    groups: dict[tuple[str, str, str], list[ShadowScore]] = {}
    for score in scores:
        groups.setdefault((score.station_name, score.modality, score.weights_sha256), []).append(score)
    rows = []
    for (station, modality, sha256), members in sorted(groups.items()):
        both = [one for one in members if one.is_comparable]
        qualities = np.array([(one.quality, one.candidate_quality) for one in both], dtype=float).reshape(-1, 2)
        found = asdict(comparison.compare(qualities[:, 0], qualities[:, 1])) if both else {"n": 0}
        rows.append(
            {
                "station_name": station,
                "modality": modality,
                "weights_sha256": sha256,
                **found,
                "verdicts_moved": sum(one.verdict != one.candidate_verdict for one in both),
                "not_scored": len(members) - len(both),
            }
        )
    return rows


def _print_compared(candidate: Weights, rows: Sequence[dict[str, object]], scores: Sequence[ShadowScore]) -> None:
    typer.echo(f"{candidate.label} compared with the active checkpoint, {count(len(scores), 'series', 'series')}")
    cells = [
        (
            str(row["station_name"] or "–"),
            str(row["modality"]),
            str(row["weights_sha256"])[:12],
            str(row["n"]),
            _number(row.get("mean_difference"), "+.3f"),
            _number(row.get("sd"), ".3f"),
            _number(row.get("srcc"), ".2f"),
            _number(row.get("turned"), ".2f"),
            str(row["verdicts_moved"]),
            str(row["not_scored"]),
        )
        for row in rows
    ]
    heads = ("scanner", "modality", "active", "n", "mean", "SD", "SRCC", "turned", "verdicts", "not scored")
    table(heads, cells)
    typer.echo("mean and SD of candidate - active; turned: share of pairs of series in the opposite order;")
    typer.echo("verdicts: how many would change, as long as the candidate is not calibrated")
    typer.echo("not scored: by the candidate, or outside the training range of one of the two")
    typer.echo(f'→ mediqa-node model promote {candidate.name} --by NAME --reason "…"')


def _number(value: object, form: str) -> str:
    return format(value, form) if isinstance(value, float) and math.isfinite(value) else "–"
