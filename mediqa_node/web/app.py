"""The application: its parts, and what a person sees when something is wrong."""

from urllib.parse import quote

import structlog
from anyio import CapacityLimiter
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse, RedirectResponse, Response

from mediqa_node.domain.errors import MediqaError, StorageFailed, fault_of
from mediqa_node.web import (
    account,
    administration,
    api,
    assets,
    calibrations,
    images,
    labels,
    live,
    operations,
    reading,
    series,
    signin,
    studies,
    trend_answers,
    trend_data,
    trend_views,
    trends,
    worklist,
)
from mediqa_node.web.access import SignInNeeded, find_actor
from mediqa_node.web.context import WebContext
from mediqa_node.web.guards import Guards
from mediqa_node.web.pages import page
from mediqa_node.web.passwords import Busy

log = structlog.get_logger("web")

_WORDS = {
    400: "The request was not understood.",
    403: "You may not do this.",
    404: "There is no such page, or not for you.",
    405: "There is no such page.",
    409: "Somebody else was faster.",
    422: "The request was not understood.",
    429: "Too many attempts; wait a little.",
    503: "The database does not answer. Received images are kept; this page comes back by itself.",
}


def create_app(context: WebContext) -> FastAPI:
    """Return the application over open resources."""
    app = FastAPI(title="mediqa-node", version=context.software_version, docs_url=None, redoc_url=None,
                  openapi_url="/api/v1/openapi.json")  # fmt: skip
    app.state.context = context
    app.state.feed = live.Feed(context)
    app.state.rendering = CapacityLimiter(images.AT_ONCE)
    # studies before reading: /reading/new is no number of a study
    for part in (assets, signin, worklist, live, series, images, trends, trend_data, trend_views, trend_answers, labels,
                 studies, reading, calibrations, operations, administration, account, api):  # fmt: skip
        app.include_router(part.router)
    app.add_middleware(Guards, failed=_failed, secure=context.secure)
    app.add_exception_handler(SignInNeeded, _sign_in)
    app.add_exception_handler(HTTPException, _explain)
    app.add_exception_handler(404, _explain)
    app.add_exception_handler(405, _explain)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(MediqaError, _failed)
    return app


def _sign_in(request: Request, _: Exception) -> Response:
    if _is_for_machines(request):
        return JSONResponse({"detail": "sign in, or send an access token"}, 401, {"www-authenticate": "Bearer"})
    if request.headers.get("hx-request"):  # htmx would put the page into a row
        return Response(status_code=401, headers={"hx-redirect": "/sign-in"})
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    back = f"?next={quote(here, safe='')}" if request.method == "GET" and here != "/" else ""
    return RedirectResponse(f"/sign-in{back}", 303)


def _explain(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    detail = str(getattr(error, "detail", "") or "")
    generic = detail in ("", "Not Found", "Method Not Allowed", "Forbidden")
    answer = _answer(request, status, _WORDS.get(status, "") if generic else detail)
    answer.headers.update(getattr(error, "headers", None) or {})  # such as Allow, Retry-After
    return answer


def _not_understood(request: Request, error: Exception) -> Response:
    fields = [".".join(str(part) for part in one["loc"][1:]) for one in getattr(error, "errors", list)()]
    return _answer(request, 422, f"Not understood: {', '.join(fields)}." if any(fields) else _WORDS[422])


def _failed(request: Request, error: Exception) -> Response:
    if isinstance(error, Busy):
        return _answer(request, 503, "Too many sign in at this moment; try again in a few seconds.")
    if isinstance(error, StorageFailed):
        log.warning("page not served", path=request.url.path, reason=str(error), hourly_for="database")
        return _answer(request, 503, _WORDS[503])
    log.error("page failed", path=request.url.path, reason=fault_of(error))
    return _answer(request, 500, "This page failed; the log of the node has the error.")


def _is_for_machines(request: Request) -> bool:
    return request.url.path.startswith("/api/")


def _answer(request: Request, status: int, words: str) -> Response:
    if _is_for_machines(request) or request.headers.get("hx-request"):
        return JSONResponse({"detail": words}, status)
    try:
        return page(request, find_actor(request, counts=False), "problem.html", "", status, message=words)
    except StorageFailed:  # without a database a page has no head
        return JSONResponse({"detail": words}, status)
    except Exception:
        log.exception("page of an error failed", path=request.url.path)
        return JSONResponse({"detail": words}, status)
