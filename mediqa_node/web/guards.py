"""What holds for every request: security headers, same-origin rule for what changes something, and size limits."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
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
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
LARGEST_BODY = 1_000_000


class Guards:
    """Sets the headers of every answer, and refuses requests from other sites and oversized ones."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        if scope["method"] not in _SAFE and not is_same_origin(headers):
            answer = PlainTextResponse("refused: the request comes from another site", 403)
            await answer(scope, receive, guarded)
        elif not _is_small(headers):
            await PlainTextResponse("refused: too large", 413)(scope, receive, guarded)
        else:
            await self._app(scope, receive, guarded)


def is_same_origin(headers: Headers) -> bool:
    """Return whether a request that changes something comes from a page of this node.

    Browsers say so in Sec-Fetch-Site, or over plain http in Origin. A request with neither is refused if it has the
    cookie of a session, and goes on if it has an access token, which no browser adds by itself.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc == headers.get("host")
    return "cookie" not in headers


def _is_small(headers: Headers) -> bool:
    length = headers.get("content-length")
    if headers.get("transfer-encoding"):
        return False
    return length is None or (length.isdigit() and int(length) <= LARGEST_BODY)
