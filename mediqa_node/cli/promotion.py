"""`mediqa-node model list | promote | rollback`: which weights score, and who decided so."""

import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node import __version__, logs, service
from mediqa_node.cli.common import open_current_node, settings_of
from mediqa_node.cli.model import model_app
from mediqa_node.cli.present import size, table
from mediqa_node.cli.progress import progress
from mediqa_node.composition import checkpoints
from mediqa_node.config import Settings
from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.domain.promotion import Promotion, Standing, Weights, Who
from mediqa_node.model.lock import DEFAULT_LOCK, LOCK_FILE, WEIGHTS_FILE, LockEntry, card_bytes, only_entry, read_lock
from mediqa_node.storage import promotions

if TYPE_CHECKING:
    from mediqa_node.model.card import Card

Json = Annotated[bool, typer.Option("--json", help="For machines.")]
By = Annotated[str, typer.Option(metavar="NAME", help="Who decides this; it stays on record.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; it stays on record.")]
Source = Annotated[
    str,
    typer.Argument(
        metavar="DIR_OR_NAME", help="A folder with a checkpoint, or of the list a name or the beginning of a digest."
    ),
]
Name = Annotated[str | None, typer.Option(help="Of the checkpoint in the model store; else the one it has.")]


@model_app.command("list")
def list_(
    context: typer.Context,
    history: Annotated[bool, typer.Option("--history", help="Who decided what, when and why.")] = False,
    as_json: Json = False,
) -> None:
    """List the checkpoints that could score: of the lock in use, and of the model store."""
    if history:
        _history(context, as_json=as_json)
        return
    settings = settings_of(context)
    known = checkpoints.decided(settings)
    rows = _rows(settings, known)
    if as_json:
        decision = asdict(known.since) if known.since else None
        typer.echo(json.dumps({"checkpoints": [asdict(row) for row in rows], "decision": decision}, indent=2))
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
    typer.echo(f"in force    {checkpoints.sentence(settings, known)}")


def _history(context: typer.Context, *, as_json: bool) -> None:
    with open_current_node(context) as (_, database), database.read() as connection:
        decisions = promotions.history(connection)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in decisions], indent=2))
        return
    if not decisions:
        typer.echo("nothing was decided yet: `model.checkpoint` of the configuration is in force")
        return
    cells = [
        (
            str(one.id),
            datetime.fromtimestamp(one.at, UTC).strftime("%Y-%m-%d %H:%M UTC"),
            one.by,
            one.action,
            *(side.label if side else "–" for side in (one.before, one.after)),
            one.reason,
        )
        for one in decisions
    ]
    table(("decision", "when", "by", "", "before", "after", "why"), cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    weights: Weights
    place: str
    size_bytes: int | None
    trained: bool | None
    fingerprint: str | None
    """Of the preprocessing: with both digests what a calibration has to name."""
    roles: list[str]


def _rows(settings: Settings, known: Standing) -> list[_Row]:
    """Return what the lock names, then the checkpoints of the store: promoted ones score from there."""
    lock, configured = settings.model_lock or DEFAULT_LOCK, settings.model.checkpoint
    back = known.can_roll_back and known.previous is None
    by_name = {"current": known.current is None, "previous": back, "configured": known.current is not None}
    rows = []
    for name, entry in read_lock(lock).items():
        file = entry.directory / WEIGHTS_FILE if entry.directory else None
        card = _card(name, entry)
        other = "prompt classifier" if name == settings.model.classifier else "no checkpoint"
        roles = [] if card is not None else [other]
        row = _Row(
            weights=Weights(name=name, sha256=entry.sha256, card_sha256=entry.card_sha256),
            place=str(settings.model.lock or "package"),
            size_bytes=file.stat().st_size if file and file.is_file() else None,
            trained=card.trained if card is not None else None,
            fingerprint=card.preprocess.fingerprint() if card is not None else None,
            roles=roles + [role for role, holds in by_name.items() if holds and name == configured],
        )
        rows.append(row)
    decided = {"current": known.current, "previous": known.previous, "shadow": known.shadow}
    for stored in checkpoints.model_store(settings).all():
        card = _card(*only_entry(stored.directory / LOCK_FILE))
        row = _Row(
            weights=stored.weights,
            place="model store",
            size_bytes=stored.size_bytes,
            trained=stored.trained,
            fingerprint=card.preprocess.fingerprint() if card is not None else None,
            roles=[role for role, one in decided.items() if one == stored.weights],
        )
        rows.append(row)
    return rows


def _card(name: str, entry: LockEntry) -> "Card | None":
    """Return the card of an entry; None where it is no checkpoint that this version can honour."""
    from mediqa_node.model.card import read_card

    try:
        return read_card(card_bytes(name, entry))
    except CheckpointRefused:
        return None


@model_app.command()
def promote(
    context: typer.Context, source: Source, by: By, reason: Reason = "", name: Name = None, as_json: Json = False
) -> None:
    """Put a checkpoint in force: copied, verified, tried on the reference set, recorded.

    Reports that were built stay as they are. The worker takes the weights up between two series. Exit status 1
    if the checkpoint fails on the reference set.
    """
    from mediqa_node.pipeline.checkpoints import promote

    logs.configure(level="ERROR")
    who = decision_of(by, reason)
    with open_current_node(context) as (settings, database), progress("trying on the reference set"):
        configured = checkpoints.configured(settings)
        stored, judge = checkpoints.take_into_store(settings, source, name)
        made, found = promote.promote(
            database, stored.weights, judge, configured=configured, who=who, software_version=__version__
        )
    void = promote.void_calibrations(settings.calibrations, made)
    if as_json:
        answer = {**asdict(made), "constancy": found.finding(), "void_calibrations": [record.id for record in void]}
        typer.echo(json.dumps(answer, indent=2))
        return
    _print_decision("promoted", made)
    typer.echo(f"kept        in {stored.directory}, {size(stored.size_bytes)}")
    typer.echo(f"constancy   {found.finding()}")
    if not stored.trained:
        consequence = "reported with a warning" if settings.model.allow_untrained else "withheld"
        typer.echo(f"UNTRAINED   these weights were never trained: their scores mean nothing and are {consequence}")
    for record in void:
        typer.echo(f"void        calibration {record.id}: it was made for {made.before.label if made.before else '–'}")
    if void:
        typer.echo("            scores are uncalibrated there until somebody calibrates these weights")
    _print_next(settings)


@model_app.command()
def rollback(context: typer.Context, by: By, reason: Reason = "", as_json: Json = False) -> None:
    """Put back the weights that the last promotion replaced, once they load. Exit status 1 if there are none."""
    from mediqa_node.pipeline.checkpoints import promote

    logs.configure(level="ERROR")
    who = decision_of(by, reason)
    with open_current_node(context) as (settings, database), progress("loading"):
        previous, decision = checkpoints.open_previous(settings)
        made = promote.roll_back(database, to=previous, decision=decision, who=who)
    void = promote.void_calibrations(settings.calibrations, made)
    if as_json:
        typer.echo(json.dumps({**asdict(made), "void_calibrations": [record.id for record in void]}, indent=2))
        return
    _print_decision("rolled back", made)
    for record in void:
        typer.echo(f"void        calibration {record.id}: it was made for {made.before.label if made.before else '–'}")
    _print_next(settings)


def decision_of(by: str, reason: str) -> Who:
    """Return who decides, now; BadParameter without a name."""
    if not 1 <= len(by.strip()) <= 64:
        raise typer.BadParameter("a name of 1 to 64 characters", param_hint="--by")
    return Who(by=by.strip(), reason=reason.strip()[:1000], at=time.time())


def _print_decision(word: str, made: Promotion) -> None:
    before, after = (weights.label if weights else "–" for weights in (made.before, made.after))
    typer.echo(f"{word:<12}{after}, as decision {made.id} by {made.by}; before: {before}")


def _print_next(settings: Settings) -> None:
    typer.echo("reports that were built stay as they are; a later revision names the weights that scored it")
    if "worker" in service.running_roles(settings):
        typer.echo("→ mediqa-node status: the worker takes the weights up within seconds, between two series")
    else:
        typer.echo("→ mediqa-node serve")
