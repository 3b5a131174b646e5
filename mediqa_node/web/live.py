"""Changes as they happen, as server-sent events (HTML Living Standard, 9.2).

An event is an entry as it is now, with its change number as the id. Change numbers are given under the lock of the
table and so follow the order of commits: a browser that comes back with the last id it saw misses nothing.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from mediqa_node.domain.access import Actor
from mediqa_node.domain.errors import StorageFailed
from mediqa_node.domain.worklist import Category, Entry
from mediqa_node.storage import worklist
from mediqa_node.storage.worklist import Room
from mediqa_node.web import words
from mediqa_node.web.access import Context, Viewer, find_actor
from mediqa_node.web.context import WebContext
from mediqa_node.web.pages import fragment

router = APIRouter(include_in_schema=False)

LOOK_EVERY_S = 0.1
_SIGN_OF_LIFE_S = 15.0
_MOST_AT_ONCE = 100
"""A browser that missed more loads its list again."""
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class Feed:
    """Looks for changes while anybody listens, once for all listeners."""

    def __init__(self, context: WebContext) -> None:
        self._context = context
        self._change = 0
        self._news = asyncio.Condition()
        self._n_listening = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Feed":
        """Listen."""
        self._n_listening += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Listen no more."""
        self._n_listening -= 1

    async def _look(self) -> None:
        while self._n_listening:
            try:
                change = await run_in_threadpool(self._last_change)
            except StorageFailed:
                change = self._change
            if change != self._change:
                async with self._news:
                    self._change = change
                    self._news.notify_all()
            await asyncio.sleep(LOOK_EVERY_S)

    def _last_change(self) -> int:
        with self._context.database.read() as connection:
            return worklist.last_change(connection)

    async def wait(self, change: int, within_s: float) -> bool:
        """Wait until there is a later change than this; return whether there is."""
        async with self._news:
            try:
                await asyncio.wait_for(self._news.wait_for(lambda: self._change > change), within_s)
            except TimeoutError:
                return False
        return True


@router.get("/live")
async def live(
    request: Request,
    context: Context,
    actor: Viewer,
    after: Annotated[int, Query(ge=0)] = 0,
    last_event_id: Annotated[str, Header()] = "",
) -> StreamingResponse:
    """Stream the entries that change from now on, or that have changed since the last one that a browser saw."""
    change = int(last_event_id) if last_event_id.isdigit() and len(last_event_id) < 16 else after
    return StreamingResponse(_events(request, context, actor, change), media_type="text/event-stream", headers=_HEADERS)


async def _events(request: Request, context: WebContext, actor: Actor, change: int) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    async with request.app.state.feed as feed:
        while not await request.is_disconnected():
            if not await feed.wait(change, _SIGN_OF_LIFE_S):
                if await run_in_threadpool(find_actor, request) is None:
                    yield _event("", {"over": True})
                    return
                yield ": nothing new\n\n"
                continue
            try:
                changed, change, messages = await run_in_threadpool(_messages, request, context, actor, change)
            except StorageFailed:
                await asyncio.sleep(1.0)
                continue
            for number, message in messages:
                yield _event(str(number), message)
            if not changed:
                await asyncio.sleep(LOOK_EVERY_S)


def _messages(
    request: Request, context: WebContext, actor: Actor, after: int
) -> tuple[bool, int, list[tuple[int, dict[str, object]]]]:
    """Return whether anything has changed, the last change, and a message for each entry."""
    with context.database.read() as connection:
        newest = worklist.last_change(connection)
        entries = worklist.changed_since(connection, after, at_most=_MOST_AT_ONCE + 1, scanners=actor.scanners)
        if len(entries) > _MOST_AT_ONCE:
            return True, newest, [(newest, {"reload": True})]
        rooms = {name: worklist.room(connection, name) for name in {entry.scanner for entry in entries}}
    messages = [(entry.change, _message(request, actor, entry, rooms[entry.scanner])) for entry in entries]
    return bool(entries), max(newest, after) if not entries else entries[-1].change, messages


def _message(request: Request, actor: Actor, entry: Entry, room: Room) -> dict[str, object]:
    return {
        "id": entry.id,
        "row": fragment(request, actor, "_row.html", entry=entry),
        "room": fragment(request, actor, "_room.html", room=room),
        "vitals": fragment(request, actor, "_vitals.html"),
        "said": words.said(entry) if entry.category in (Category.REPEAT, Category.LOOK) else "",
        "alarm": entry.category is Category.REPEAT and entry.answer is None,
    }


def _event(number: str, message: dict[str, object]) -> str:
    """Return an unnamed event; JSON has no line breaks of its own."""
    head = f"id: {number}\n" if number else ""
    return f"{head}data: {json.dumps(message)}\n\n"
