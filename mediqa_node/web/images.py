"""Pictures of a series for its page. Addresses have the revision, so that browsers may keep what they got.

They are rendered one after the other in another process. Requests that wait for it take turns, so that they do not
occupy the threads that answer everything else.
"""

from collections.abc import Mapping
from functools import partial

from anyio import to_thread
from fastapi import APIRouter, HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from mediqa_node.domain.access import Actor
from mediqa_node.web.access import Background, Context, context_of
from mediqa_node.web.context import WebContext
from mediqa_node.web.numbers import Number, Place
from mediqa_node.web.pictures import NoPicture
from mediqa_node.web.worklist import entry_of

router = APIRouter(include_in_schema=False)

_KEEP = {"cache-control": "private, max-age=86400, immutable", "vary": "Cookie"}
"""Only for the session that asked: the next one in this browser may see fewer scanners."""
AT_ONCE = 8
_PNG_SIGNATURE = b"\x89PNG"


@router.get("/series/{number}/{revision}/thumb")
async def thumb(request: Request, context: Context, actor: Background, number: Number, revision: Number) -> Response:
    """Return a small picture of the series."""
    return await _picture(request, context, actor, number, "thumb", revision=revision)


@router.get("/series/{number}/{revision}/scout")
async def scout(request: Request, context: Context, actor: Background, number: Number, revision: Number) -> Response:
    """Return the volume from the side."""
    return await _picture(request, context, actor, number, "scout", revision=revision)


@router.get("/series/{number}/{revision}/slices/{index}")
async def slice_(
    request: Request, context: Context, actor: Background, number: Number, revision: Number, index: Place
) -> Response:
    """Return a scored slice: its values, or a picture of a colour photograph."""
    return await _picture(request, context, actor, number, "slice", revision=revision, index=index)


@router.get("/series/{number}/{revision}/maps/{index}")
async def map_(
    request: Request, context: Context, actor: Background, number: Number, revision: Number, index: Place
) -> Response:
    """Return the patch map of a scored slice."""
    return await _picture(request, context, actor, number, "map", revision=revision, index=index)


async def _picture(
    request: Request, context: WebContext, actor: Actor, number: int, what: str, **arguments: int
) -> Response:
    entry = await run_in_threadpool(entry_of, context, actor, number)
    return await picture(request, what, series=entry.series_instance_uid, **arguments)


async def picture(request: Request, what: str, **arguments: object) -> Response:
    """Return a picture to whoever was found to be allowed to see it; HTTPException 404 where there is none."""
    try:
        content = await rendered(request, what, arguments)
    except NoPicture as error:
        raise HTTPException(404, str(error)) from error
    if content.startswith(_PNG_SIGNATURE):
        return Response(content, media_type="image/png", headers=_KEEP)
    return Response(content, media_type="application/octet-stream", headers=_KEEP | {"content-encoding": "gzip"})


async def rendered(request: Request, what: str, arguments: Mapping[str, object]) -> bytes:
    """Return a picture or document, when it is this request's turn.

    Raises:
        NoPicture: there is none.
    """
    render = partial(context_of(request).pictures.render, what, arguments)
    return await to_thread.run_sync(render, limiter=request.app.state.rendering)
