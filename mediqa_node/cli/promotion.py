"""`mediqa-node model list | promote | rollback`: which checkpoint is active, and who decided."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node import __version__
from mediqa_node.cli.common import open_node, quiet, settings_of
from mediqa_node.cli.model import model_app
from mediqa_node.cli.options import Json
from mediqa_node.cli.present import as_json, date, fact, size, table
from mediqa_node.cli.progress import progress
from mediqa_node.domain.promotion import Promotion, Weights, Who

if TYPE_CHECKING:
    from mediqa_node.config import Settings
    from mediqa_node.domain.assessment import Calibration

By = Annotated[str, typer.Option(metavar="NAME", help="Who decides. Required; the name is recorded.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Reason for the decision. It is recorded.")]
Source = Annotated[
    str,
    typer.Argument(
        metavar="DIR_OR_NAME", help="Folder of a checkpoint, or a name or the start of a digest in `model list`."
    ),
]
Name = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Name in the model store. The default is the checkpoint's own name."),
]


@model_app.command("list")
def list_(
    context: typer.Context,
    history: Annotated[bool, typer.Option("--history", help="List the decisions: who, what, when and why.")] = False,
    json: Json = False,
) -> None:
    """List the checkpoints in the lock file and the model store."""
    from mediqa_node.composition import checkpoints
    from mediqa_node.composition.checkpoint_list import listed

    if history:
        _history(context, json=json)
        return
    settings = settings_of(context)
    known = checkpoints.standing(settings)
    rows = listed(settings, known)
    if json:
        decision = asdict(known.since) if known.since else None
        as_json({"checkpoints": [asdict(row) for row in rows], "decision": decision})
        return
    cells = [
        (
            row.weights.name,
            row.weights.sha256[:12],
            size(row.size_bytes) if row.size_bytes is not None else "–",
            {True: "yes", False: "NO", None: "–"}[row.trained],
            row.place,
            ", ".join(row.roles),
        )
        for row in rows
    ]
    table(("name", "weights", "size", "trained", "from", ""), cells)
    fact("active", checkpoints.sentence(settings, known))


def _history(context: typer.Context, *, json: bool) -> None:
    from mediqa_node.storage import promotions

    with open_node(context) as (_, database), database.read() as connection:
        decisions = promotions.history(connection)
    if json:
        as_json([asdict(one) for one in decisions])
        return
    if not decisions:
        typer.echo("no decision yet: the checkpoint named by `model.checkpoint` is active")
        return
    cells = [
        (
            str(one.id),
            date(one.at),
            one.by,
            one.action,
            *(side.label if side else "–" for side in (one.before, one.after)),
            one.reason,
        )
        for one in decisions
    ]
    table(("decision", "when", "by", "", "before", "after", "why"), cells)


@model_app.command()
def promote(
    context: typer.Context,
    source: Source,
    by: By = "",
    reason: Reason = "",
    name: Name = None,
    unevaluated: Annotated[
        bool,
        typer.Option(
            "--unevaluated",
            help="Promote the checkpoint even if its card has no claims, no training range or no reference scores. "
            "Every report then begins with NOT EVALUATED.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Make a checkpoint active.

    The checkpoint is copied into the model store, verified, checked on the reference set and recorded. Existing reports
    stay as they are. The worker switches between two series. The exit status is 1 if the checkpoint fails the check or
    was never evaluated.
    """
    from mediqa_node.composition import checkpoints
    from mediqa_node.pipeline.checkpoints import promote

    quiet()
    with open_node(context) as (settings, _):
        checkpoints.find_checkpoint(settings, source)
    who = decision_of(by, reason)
    with open_node(context) as (settings, database), progress("checking on the reference set"):
        if not unevaluated:
            checkpoints.refuse_unevaluated(settings, source)
        configured = checkpoints.configured(settings)
        shadow = checkpoints.standing(settings).shadow
        stored, assessor = checkpoints.take_into_store(settings, source, name)
        made, found = promote.promote(
            database, stored.weights, assessor, configured=configured, who=who, software_version=__version__
        )
    void = promote.void_calibrations(checkpoints.approved_calibrations(settings), made)
    if json:
        answer = {**asdict(made), "constancy": found.finding(), "void_calibrations": [record.id for record in void]}
        as_json(answer | {"shadow_ended": shadow.label if shadow and _ended(settings, shadow) else None})
        return
    _print_decision("promoted", made)
    fact("kept", f"in {stored.directory}, {size(stored.size_bytes)}")
    fact("constancy", found.finding())
    _print_shadow(settings, shadow)
    if not stored.trained:
        consequence = "reported with a warning" if settings.model.allow_untrained else "withheld"
        fact("UNTRAINED", f"these weights were never trained: their scores mean nothing and are {consequence}")
    elif not assessor.scorer.checkpoint.evaluated:
        fact("warning", "NOT EVALUATED: nobody has measured what its score is worth; every report says so")
    _print_void(made, void)
    _print_next(settings)


@model_app.command()
def rollback(context: typer.Context, by: By = "", reason: Reason = "", json: Json = False) -> None:
    """Make the previous checkpoint active again.

    The checkpoint is loaded first. The exit status is 1 if no promotion can be rolled back.
    """
    from mediqa_node.composition import checkpoints
    from mediqa_node.pipeline.checkpoints import promote

    quiet()
    who = decision_of(by, reason)
    with open_node(context) as (settings, database), progress("loading"):
        shadow = checkpoints.standing(settings).shadow
        previous, decision = checkpoints.open_previous(settings)
        made = promote.roll_back(database, to=previous, decision=decision, who=who)
    void = promote.void_calibrations(checkpoints.approved_calibrations(settings), made)
    if json:
        answer = {**asdict(made), "void_calibrations": [record.id for record in void]}
        as_json(answer | {"shadow_ended": shadow.label if shadow and _ended(settings, shadow) else None})
        return
    _print_decision("rolled back", made)
    _print_shadow(settings, shadow)
    _print_void(made, void)
    _print_next(settings)


def decision_of(by: str, reason: str) -> Who:
    """Return who decides now, and why; BadParameter without a name."""
    if not 1 <= len(by.strip()) <= 64:
        raise typer.BadParameter("give the name of who decides, 1 to 64 characters", param_hint="--by")
    return Who(by=by.strip(), reason=reason.strip()[:1000], at=time.time())


def _print_decision(word: str, made: Promotion) -> None:
    before, after = (weights.label if weights else "–" for weights in (made.before, made.after))
    fact(word, f"{after}, as decision {made.id} by {made.by}; before: {before}")


def _print_void(made: Promotion, void: Sequence[Calibration]) -> None:
    for record in void:
        fact("void", f"calibration {record.id}: it was made for {made.before.label if made.before else '–'}")
    if void:
        fact("", "scores are uncalibrated there until the site calibrates this checkpoint")


def _ended(settings: Settings, shadow: Weights | None) -> bool:
    from mediqa_node.composition import checkpoints

    return shadow is not None and checkpoints.standing(settings).shadow is None


def _print_shadow(settings: Settings, shadow: Weights | None) -> None:
    """Print how a decision affects the candidate that was in shadow."""
    if shadow is not None:
        ended = _ended(settings, shadow)
        what = "ended: this checkpoint is active now" if ended else "goes on: it is compared with the active one"
        fact("shadow", f"{shadow.label} {what}")


def _print_next(settings: Settings) -> None:
    from mediqa_node import service

    typer.echo("existing reports stay as they are; a later revision names the checkpoint that scored it")
    if "worker" in service.running_roles(settings):
        typer.echo("→ mediqa-node status: the worker switches within seconds, between two series")
    else:
        typer.echo("→ mediqa-node serve")
