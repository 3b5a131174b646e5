"""Changes as they happen, as server-sent events (HTML Living Standard, 9.2).

An event is an entry as it is now, with its change number as the id. Change numbers are given under the lock of the
table and so follow the order of commits: a browser that comes back with the last id it saw misses nothing.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from mediqa_node.domain.access import Actor
from mediqa_node.domain.errors import StorageFailed
from mediqa_node.domain.worklist import Category, Entry
from mediqa_node.storage import worklist
from mediqa_node.storage.worklist import Room
from mediqa_node.web import words
from mediqa_node.web.access import Background, Context, find_actor
from mediqa_node.web.context import WebContext
from mediqa_node.web.numbers import After
from mediqa_node.web.pages import fragment, vitals
from mediqa_node.web.worklist import row

router = APIRouter(include_in_schema=False)

LOOK_EVERY_S = 0.1
_SIGN_OF_LIFE_S = 15.0
_MOST_AT_ONCE = 100
"""A browser that missed more loads its list again."""
_STREAMS, _STREAMS_OF_A_SESSION = 200, 8
"""A browser needs one for all its tabs; the server has 400 connections for everything."""
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class Feed:
    """Looks for changes while anybody listens, once for all listeners."""

    def __init__(self, context: WebContext) -> None:
        self._context = context
        self._change = 0
        self._news = asyncio.Condition()
        self._streams: Counter[int] = Counter()
        self._task: asyncio.Task[None] | None = None

    def admits(self, session_id: int) -> bool:
        """Return whether one more stream may be opened for a session."""
        return self._streams[session_id] < _STREAMS_OF_A_SESSION and self._streams.total() < _STREAMS

    @asynccontextmanager
    async def listening(self, session_id: int) -> AsyncIterator["Feed"]:
        """Listen, as one of the streams of a session."""
        self._streams[session_id] += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            yield self
        finally:
            self._streams -= Counter({session_id: 1})  # and forgets those without any

    async def _look(self) -> None:
        while self._streams:
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
    actor: Background,
    after: After = 0,
    last_event_id: Annotated[str, Header()] = "",
) -> StreamingResponse:
    """Stream the entries that change from now on, or that have changed since the last one that a browser saw."""
    if not request.app.state.feed.admits(actor.session_id):
        raise HTTPException(429, "Too many pages of this session are open.", {"retry-after": "15"})
    known = last_event_id.isascii() and last_event_id.isdecimal() and len(last_event_id) < 10
    change = int(last_event_id) if known else after
    events = _events(request, context, actor.session_id, change)
    return StreamingResponse(events, media_type="text/event-stream", headers=_HEADERS)


async def _events(request: Request, context: WebContext, session_id: int, change: int) -> AsyncIterator[str]:
    """Send changes for as long as the session lasts, and always within what its actor may see now."""
    yield "retry: 1000\n\n"
    async with request.app.state.feed.listening(session_id) as feed:
        while not await request.is_disconnected():
            is_news = await feed.wait(change, _SIGN_OF_LIFE_S)
            try:
                actor = await run_in_threadpool(find_actor, request, counts=False)
                if actor is None:
                    yield _event("", {"over": True})
                    return
                if not is_news:
                    yield ": nothing new\n\n"
                    continue
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
    head = fragment(request, actor, "_vitals.html", vitals=vitals(request)) if entries else ""
    messages = [(entry.change, _message(request, actor, entry, rooms[entry.scanner], head)) for entry in entries]
    return bool(entries), max(newest, after) if not entries else entries[-1].change, messages


def _message(request: Request, actor: Actor, entry: Entry, room: Room, head: str) -> dict[str, object]:
    return {
        "id": entry.id,
        "row": row(request, actor, entry),
        "room": fragment(request, actor, "_room.html", room=room),
        "vitals": head,
        "said": words.said(entry) if entry.is_alarm else "",
        "alarm": entry.category is Category.REPEAT and entry.answer is None,
    }


def _event(number: str, message: dict[str, object]) -> str:
    """Return an unnamed event; JSON has no line breaks of its own."""
    head = f"id: {number}\n" if number else ""
    return f"{head}data: {json.dumps(message)}\n\n"
