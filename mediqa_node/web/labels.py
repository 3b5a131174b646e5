"""Harvested labels: what is there, what is left out and why, and exports built from it."""

import json
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from mediqa_node.domain.access import Actor, Permission
from mediqa_node.domain.commands import Command, CommandAction, CommandState
from mediqa_node.domain.export import PAYLOADS, SPLITS, in_words
from mediqa_node.storage import commands, labels, worklist
from mediqa_node.storage.labels import LabelFilter
from mediqa_node.storage.worklist import Filter
from mediqa_node.web.access import Context, needs, record
from mediqa_node.web.archive import packed
from mediqa_node.web.context import WebContext
from mediqa_node.web.forms import Word, Words
from mediqa_node.web.histogram import histogram
from mediqa_node.web.numbers import Before
from mediqa_node.web.pages import fragment, page

router = APIRouter(include_in_schema=False)

Labelling = Annotated[Actor, Depends(needs(Permission.LABELS))]
Polling = Annotated[Actor, Depends(needs(Permission.LABELS, counts=False))]
Exporting = Annotated[Actor, Depends(needs(Permission.EXPORT))]
Text = Annotated[str, Query(max_length=64)]
_ON_A_PAGE = 50
_UNITS = {"CT": "mAs", "MR": "T"}
_MARK = "provenance.json"
"""The file that makes a folder an export."""


@router.get("/labels")
def show(
    request: Request,
    context: Context,
    actor: Labelling,
    modality: Text = "",
    scanner: Text = "",
    state: Text = "",
    reason: Text = "",
    before: Before = None,
) -> Response:
    """Show labels by modality and scanner, exclusions with their reasons, and the series behind them."""
    wanted = LabelFilter(
        modality=modality, scanner=scanner, state=state if state in ("eligible", "excluded") else "", reason=reason
    )
    with context.database.read() as connection:
        groups = labels.groups(connection, wanted)
        reasons = labels.reasons(connection, wanted)
        entries = labels.page(connection, wanted, at_most=_ON_A_PAGE + 1, before=before)
        values = {name: labels.values(connection, wanted, name) for name in _UNITS}
        choices = worklist.choices(connection, Filter())
    query = {name: getattr(wanted, name) for name in LabelFilter.__dataclass_fields__}
    return page(
        request,
        actor,
        "labels.html",
        "labels",
        groups=groups,
        reasons=reasons,
        entries=entries[:_ON_A_PAGE],
        more=len(entries) > _ON_A_PAGE,
        histograms=[
            histogram(found, unit=_UNITS[name], title=f"{name}, {_UNITS[name]}")
            for name, found in values.items()
            if found
        ],
        choices=choices,
        wanted=wanted,
        filters={name: value for name, value in query.items() if value},
        in_words=in_words,
    )


# ── exports ──────────────────────────────────────────────────────────────────


@router.get("/labels/exports")
def exports(request: Request, context: Context, actor: Labelling) -> Response:
    """Show the form of an export, and past ones."""
    with context.database.read() as connection:
        choices = worklist.choices(connection, Filter())
    return page(
        request,
        actor,
        "exports.html",
        "labels",
        choices=choices,
        **_state(context),
        in_words=in_words,
    )


@router.get("/labels/exports/state")
def state(request: Request, context: Context, actor: Polling) -> Response:
    """Return the part of the page that changes."""
    return HTMLResponse(fragment(request, actor, "_exports.html", **_state(context), in_words=in_words))


def _state(context: WebContext) -> dict[str, Any]:
    with context.database.read() as connection:
        asked = commands.latest(connection, (CommandAction.PREVIEW, CommandAction.EXPORT), at_most=12)
    preview = next((one for one in asked if one.action is CommandAction.PREVIEW), None)
    return {
        "preview": preview,
        "preview_result": _result(preview),
        "asked": [(one, _result(one)) for one in asked if one.action is CommandAction.EXPORT],
        "folders": past(context.exports),
        "splits": SPLITS,
        "busy": any(one.state in (CommandState.WAITING, CommandState.RUNNING) for one in asked),
    }


def _result(command: Command | None) -> dict[str, Any] | None:
    """Return the numbers of an action that is done, or None."""
    if command is None or command.state is not CommandState.DONE:
        return None
    try:
        found: dict[str, Any] = json.loads(command.result)
    except ValueError:
        return None
    return found


@router.post("/labels/exports")
def ask(
    request: Request,
    context: Context,
    actor: Exporting,
    what: Word = "",
    payload: Word = "refs",
    since: Word = "",
    until: Word = "",
    modality: Words = [],  # noqa: B006 (a form without it)
    scanner: Words = [],  # noqa: B006
    all: Word = "",
    faces: Word = "",
) -> Response:
    """Ask for a preview, or for an export."""
    wanted = CommandAction.EXPORT if what == "export" else CommandAction.PREVIEW
    if payload not in PAYLOADS:
        raise HTTPException(422, f"Pixels are one of {', '.join(PAYLOADS)}.")
    days = {"since": _day(since), "until": _day(until)}
    arguments: dict[str, Any] = {
        "payload": payload,
        "modalities": [one for one in modality if one],
        "scanners": [one for one in scanner if one],
        "eligible_only": all != "1",
        "faces": faces == "1",
        **{name: day for name, day in days.items() if day},
    }
    with context.database.write() as connection:
        number = commands.ask(connection, wanted, arguments, by=actor.name, at=context.clock())
        record(request, actor, f"{wanted}.asked", on=number, detail=json.dumps(arguments), within=connection)
    return RedirectResponse("/labels/exports", 303)


def _day(text: str) -> str:
    if not text:
        return ""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise HTTPException(422, "A day is written 2026-11-30.") from None


def past(folder: Path) -> list[dict[str, Any]]:
    """Return the exports in a folder, the newest first; others than exports are left out."""
    if not folder.is_dir():
        return []
    found = [one for one in folder.iterdir() if not one.name.startswith(".") and (one / _MARK).is_file()]
    found.sort(key=lambda one: (one / _MARK).stat().st_mtime, reverse=True)
    return [_described(one) for one in found[:50]]


def _described(folder: Path) -> dict[str, Any]:
    try:
        provenance = json.loads((folder / _MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        provenance = {}
    return {
        "name": folder.name,
        "at": (folder / _MARK).stat().st_mtime,
        "export_id": str(provenance.get("export_id", ""))[:16],
        "request": provenance.get("request", {}),
        "n_bytes": sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
    }


@router.get("/labels/exports/{name}/download")
def download(request: Request, context: Context, actor: Exporting, name: str) -> Response:
    """Return an export as a tar archive."""
    folder = (
        next((one for one in context.exports.iterdir() if one.name == name), None) if context.exports.is_dir() else None
    )
    if folder is None or not (folder / _MARK).is_file():
        raise HTTPException(404, "There is no such export.")
    record(request, actor, "export.downloaded", on=name)
    headers = {"content-disposition": f'attachment; filename="mediqa-{quote(folder.name)}.tar"'}
    return StreamingResponse(packed(folder), media_type="application/x-tar", headers=headers)
