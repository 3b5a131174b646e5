"""Pictures of a series for its page. Addresses have the revision, so that browsers may keep what they got."""

from fastapi import APIRouter, HTTPException
from starlette.responses import Response

from mediqa_node.domain.access import Actor
from mediqa_node.web.access import Context, Viewer
from mediqa_node.web.context import WebContext
from mediqa_node.web.numbers import Number, Place
from mediqa_node.web.pictures import NoPicture
from mediqa_node.web.worklist import entry_of

router = APIRouter(include_in_schema=False)

_KEEP = "private, max-age=86400, immutable"
_PNG_SIGNATURE = b"\x89PNG"


@router.get("/series/{number}/{revision}/thumb")
def thumb(context: Context, actor: Viewer, number: Number, revision: Number) -> Response:
    """Return a small picture of the series."""
    return _picture(context, actor, number, "thumb", revision=revision)


@router.get("/series/{number}/{revision}/scout")
def scout(context: Context, actor: Viewer, number: Number, revision: Number) -> Response:
    """Return the volume from the side."""
    return _picture(context, actor, number, "scout", revision=revision)


@router.get("/series/{number}/{revision}/slices/{index}")
def slice_(context: Context, actor: Viewer, number: Number, revision: Number, index: Place) -> Response:
    """Return a scored slice: its values, or a picture of a colour photograph."""
    return _picture(context, actor, number, "slice", revision=revision, index=index)


@router.get("/series/{number}/{revision}/maps/{index}")
def map_(context: Context, actor: Viewer, number: Number, revision: Number, index: Place) -> Response:
    """Return the patch map of a scored slice."""
    return _picture(context, actor, number, "map", revision=revision, index=index)


def _picture(context: WebContext, actor: Actor, number: int, what: str, **arguments: int) -> Response:
    entry = entry_of(context, actor, number)
    return picture(context, what, series=entry.series_instance_uid, **arguments)


def picture(context: WebContext, what: str, **arguments: object) -> Response:
    """Return a picture to whoever was found to be allowed to see it; HTTPException 404 where there is none."""
    try:
        content = context.pictures.render(what, arguments)
    except NoPicture as error:
        raise HTTPException(404, str(error)) from error
    headers = {"cache-control": _KEEP}
    if content.startswith(_PNG_SIGNATURE):
        return Response(content, media_type="image/png", headers=headers)
    headers["content-encoding"] = "gzip"
    return Response(content, media_type="application/octet-stream", headers=headers)
