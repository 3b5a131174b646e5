"""Scripts, styles and the font: files of this package, addressed by their digest, so that browsers keep them for good.

Third-party files are vendored unchanged; `VENDORED` pins their SHA-256, and a test compares.
"""

import gzip
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response

router = APIRouter()

_FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".woff2": "font/woff2",
    ".svg": "image/svg+xml",
}
VENDORED: Mapping[str, str] = {
    "htmx.min.js": "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130",
    "hx-sse.min.js": "18ef2761356ec1fe0bb6d92612315b37517a7c1e9856b661c5ae81fef239d103",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "inter.woff2": "3100e775e8616cd2611beecfa23a4263d7037586789b43f035236a2e6fbd4c62",
}
"""htmx 4.0.1 with its hx-sse (0BSD), uPlot 1.6.32 (MIT), Inter 5.3.0 of fontsource, variable, latin (OFL)."""
_FOR_GOOD = "public, max-age=31536000, immutable"


@cache
def _files() -> dict[str, tuple[bytes, bytes | None, str]]:
    """Return content, gzip of text, and digest of each file."""
    found = {}
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix not in _TYPES:
            continue
        content = path.read_bytes()
        packed = None if path.suffix == ".woff2" else gzip.compress(content, 9, mtime=0)
        found[path.name] = content, packed, hashlib.sha256(content).hexdigest()[:12]
    return found


def asset(name: str) -> str:
    """Return the address of a file."""
    return f"/static/{_files()[name][2]}/{name}"


@router.get("/static/{digest}/{name}", include_in_schema=False)
def static(digest: str, name: str, request: Request) -> Response:
    """Return a file of the package."""
    if name not in _files():
        raise HTTPException(404, "no such file")
    content, packed, current = _files()[name]
    headers = {"cache-control": _FOR_GOOD if digest == current else "no-cache", "vary": "Accept-Encoding"}
    if packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        content = packed
        headers["content-encoding"] = "gzip"
    return Response(content, media_type=_TYPES[Path(name).suffix], headers=headers)
