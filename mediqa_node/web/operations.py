"""What waits, what failed, and what a person can do about it."""

import shutil
from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from pydantic import AfterValidator
from starlette.responses import HTMLResponse, Response

from mediqa_node.domain.access import Actor, Permission
from mediqa_node.domain.cluster import Member
from mediqa_node.domain.commands import CommandAction
from mediqa_node.domain.health import process_states
from mediqa_node.storage import commands, health, held, promotions, pulse
from mediqa_node.web.access import Context, needs, record
from mediqa_node.web.context import WebContext
from mediqa_node.web.forms import Text, Word, one_line
from mediqa_node.web.pages import fragment, page

router = APIRouter(include_in_schema=False)

Watching = Annotated[Actor, Depends(needs(Permission.OPERATIONS))]
Polling = Annotated[Actor, Depends(needs(Permission.OPERATIONS, counts=False))]
Deciding = Annotated[Actor, Depends(needs(Permission.CHECKPOINTS))]
Operating = Annotated[Actor, Depends(needs(Permission.OPERATE))]
_STUCK_AFTER_S = 3600.0
_DECISIONS = (CommandAction.PROMOTE, CommandAction.ROLL_BACK, CommandAction.SHADOW, CommandAction.UNSHADOW)
_ALLOWED = (CommandAction.RETRY, CommandAction.CANCEL, CommandAction.ECHO)


@router.get("/operations")
def show(request: Request, context: Context, actor: Watching) -> Response:
    """Show queues, held work, processes, peers and checkpoints."""
    return page(request, actor, "operations.html", "operations", **_state(context))


@router.get("/operations/state")
def state(request: Request, context: Context, actor: Polling) -> Response:
    """Return the part of the page that changes."""
    return HTMLResponse(fragment(request, actor, "_operations.html", **_state(context)))


def _state(context: WebContext) -> dict[str, object]:
    now = context.clock()
    disk = shutil.disk_usage(context.data_dir)
    running, has_room = context.running(), disk.free > context.low_water_bytes
    with context.database.read() as connection:
        found = health.load(
            connection,
            running=running,
            host_id=context.host_id,
            has_room=has_room,
            now=now,
            stuck_before=now - _STUCK_AFTER_S,
            tls=context.tls_files(),
        )
        values = {
            "held": held.deliveries(connection),
            "stopped": held.series(connection),
            "sent": held.last_sent(connection),
            "n_open": pulse.open_associations(connection),
            "asked": commands.latest(connection),
            "standing": promotions.standing(connection),
            "history": promotions.history(connection)[-8:][::-1],
        }
    sentence, checkpoints = context.checkpoints()
    processes = list(process_states(found.heartbeats, running, context.host_id, now))
    return values | {
        "destinations": found.destinations,
        "processes": processes,
        "filled": {Member.named(name).kind for name, state, _ in processes if state != "stopped"},
        "peers": context.peers,
        "disk": disk,
        "low_water": context.low_water_bytes,
        "checkpoint": sentence,
        "checkpoints": checkpoints,
        "concerns": found.concerns,
    }


@router.post("/operations/checkpoints")
def decide(
    request: Request,
    context: Context,
    actor: Deciding,
    action: Annotated[str, Form(max_length=16)],
    reason: Annotated[str, AfterValidator(one_line), Form(max_length=500)],
    which: Word = "",
) -> Response:
    """Ask for a decision about checkpoints; it is tried on the reference set before it counts."""
    if action not in _DECISIONS:
        raise HTTPException(422, f"A decision is one of {', '.join(_DECISIONS)}.")
    if not reason:
        raise HTTPException(422, "A decision has a reason; it stays on record.")
    wanted = CommandAction(action)
    known = {one.weights.sha256 for one in context.checkpoints()[1] if one.trained is not None}
    if wanted in (CommandAction.PROMOTE, CommandAction.SHADOW) and which not in known:
        raise HTTPException(422, "There is no such checkpoint.")
    arguments = {"which": which, "reason": reason}
    with context.database.write() as connection:
        commands.ask(connection, wanted, arguments, by=actor.name, at=context.clock())
        record(request, actor, f"{action}.asked", on=which[:12], detail=reason, within=connection)
    return HTMLResponse(fragment(request, actor, "_operations.html", **_state(context)))


@router.post("/operations/commands")
def ask(
    request: Request,
    context: Context,
    actor: Operating,
    action: Annotated[str, Form(max_length=16)],
    which: Word,
    reason: Text = "",
) -> Response:
    """Ask for an action; the courier carries it out, and the page shows how it ended."""
    if action not in _ALLOWED:
        raise HTTPException(422, f"An action is one of {', '.join(_ALLOWED)}.")
    wanted = CommandAction(action)
    if wanted is CommandAction.ECHO and which not in {peer.name for peer in context.peers}:
        raise HTTPException(422, "Only configured peers can be verified.")
    if wanted is CommandAction.CANCEL and not (which.isascii() and which.isdecimal() and reason):
        raise HTTPException(422, "To cancel a delivery takes its number and a reason.")
    arguments: dict[CommandAction, dict[str, object]] = {
        CommandAction.RETRY: {"which": [which]},
        CommandAction.CANCEL: {"delivery": which, "reason": reason},
        CommandAction.ECHO: {"peer": which},
    }
    with context.database.write() as connection:
        commands.ask(connection, wanted, arguments[wanted], by=actor.name, at=context.clock())
        record(request, actor, f"{action}.asked", on=which, detail=reason, within=connection)
    return HTMLResponse(fragment(request, actor, "_operations.html", **_state(context)))
