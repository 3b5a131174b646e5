"""What holds for every request: security headers, same-origin rule for what changes something, and size limits."""

from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=()",
}
_OVER_TLS = {"strict-transport-security": "max-age=31536000"}
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
LARGEST_BODY = 1_000_000


class Guards:
    """Sets the headers of every answer, and refuses requests from other sites and oversized ones.

    Args:
        failed: makes the answer for an error that nobody foresaw; it is made here, for the framework's own place for
            it lies outside of this class, and answers there have no headers.
        secure: the node is reached over TLS only.
    """

    def __init__(self, app: ASGIApp, failed: Callable[[Request, Exception], Response], secure: bool = False) -> None:
        self._app = app
        self._failed = failed
        self._headers = _HEADERS | (_OVER_TLS if secure else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        if (refusal := _refusal(scope, headers)) is not None:
            status, why = refusal
            await JSONResponse({"detail": why}, status)(scope, receive, guarded)
            return
        try:
            await self._app(scope, receive, guarded)
        except Exception as error:
            if started:
                raise
            answer = await run_in_threadpool(self._failed, Request(scope), error)
            await answer(scope, receive, guarded)


def _refusal(scope: Scope, headers: Headers) -> tuple[int, str] | None:
    """Return status and reason for a request that is not handled at all, or None."""
    if scope["method"] not in _SAFE and not is_same_origin(headers, scope["scheme"]):
        return 403, "Refused: the request comes from another site."
    if not _is_small(headers):
        return 413, "Refused: too large."
    if b"%00" in scope["query_string"] or "\0" in scope["path"]:  # which PostgreSQL takes in no text
        return 400, "Refused: a NUL in the address."
    return None


def is_same_origin(headers: Headers, scheme: str) -> bool:
    """Return whether a request that changes something comes from a page of this node.

    Browsers say so in Sec-Fetch-Site, or over plain http in Origin. A request with neither is refused if it has the
    cookie of a session, and goes on if it has an access token, which no browser adds by itself.

    Args:
        scheme: https if the request came over TLS, which no page that did not may send it.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is not None:
        of_page, _, host = origin.partition("://")
        return host != "" and host == headers.get("host") and not (scheme == "https" and of_page != "https")
    return "cookie" not in headers


def _is_small(headers: Headers) -> bool:
    length = headers.get("content-length")
    if headers.get("transfer-encoding"):
        return False
    return length is None or (length.isascii() and length.isdecimal() and int(length) <= LARGEST_BODY)
