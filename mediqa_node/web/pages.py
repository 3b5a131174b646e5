"""Templates, and what every page shows around its own content."""

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from mediqa_node.domain.access import Actor, Permission
from mediqa_node.domain.worklist import ANSWERS, WORDS, shown
from mediqa_node.storage import pulse
from mediqa_node.web import keys, words
from mediqa_node.web.access import context_of
from mediqa_node.web.assets import asset

_TEMPLATES = Path(__file__).parent / "templates"
TABS = (
    ("worklist", "/", "Worklist", Permission.WORKLIST),
    ("trends", "/trends", "Trends", Permission.TRENDS),
    ("labels", "/labels", "Labels", Permission.LABELS),
    ("reading", "/reading", "Reading", Permission.READ),
    ("operations", "/operations", "Operations", Permission.OPERATIONS),
)


@cache
def environment() -> Environment:
    """Return the templates: everything is escaped, and a name that is not given is an error."""
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals |= {
        "asset": asset,
        "category_words": WORDS,
        "answer_words": ANSWERS,
        "shown": shown,
        "words": words,
        "query": with_query,
    }
    made.filters["log"] = math.log
    return made


def with_query(path: str, **values: object) -> str:
    """Return an address with a query of what is not empty."""
    kept = {name: value for name, value in values.items() if value not in (None, "", False)}
    return f"{path}?{urlencode(kept)}" if kept else path


def page(
    request: Request, actor: Actor | None, template: str, tab: str, status: int = 200, /, **values: Any
) -> HTMLResponse:
    """Return a whole page.

    Args:
        template: name of its file.
        tab: which part of the workbench it belongs to; its keys go by it too.
    """
    around = {"tab": tab, "tabs": _tabs(actor), "vitals": vitals(request)}
    return HTMLResponse(fragment(request, actor, template, **around, **values), status)


def fragment(request: Request, actor: Actor | None, template: str, /, **values: Any) -> str:
    """Return a rendered template."""
    return environment().get_template(template).render({**_around(request, actor, values.get("tab", "")), **values})


def _tabs(actor: Actor | None) -> list[tuple[str, str, str]]:
    if actor is None:
        return []
    return [(tab, path, title) for tab, path, title, permission in TABS if actor.may(permission)]


def _around(request: Request, actor: Actor | None, tab: str) -> dict[str, Any]:
    context = context_of(request)
    now = context.clock()
    theme = request.cookies.get("theme", "")
    return {
        "actor": actor,
        "may": (lambda permission: actor is not None and actor.may(Permission(permission))),
        "now": now,
        "zone": context.time_zone,
        "node": context.title,
        "version": context.software_version,
        "theme": theme if theme in ("dark", "light") else "",
        "keys": keys.of_page(tab),
        "key_map": keys.as_map(tab),
    }


def vitals(request: Request) -> Mapping[str, Any]:
    """Return what the head of every page says about the node."""
    context = context_of(request)
    with context.database.read() as connection:
        return pulse.read(connection)
