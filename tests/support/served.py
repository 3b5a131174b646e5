"""The workbench of a bench, served on a port, and a browser that looks at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from playwright.sync_api import Browser, BrowserContext, Page, Playwright

from mediqa_node.composition.resources import PictureFactory
from mediqa_node.domain.access import Role
from mediqa_node.storage import sessions, users
from mediqa_node.web.access import COOKIE
from mediqa_node.web.app import create_app
from mediqa_node.web.context import WebContext
from mediqa_node.web.pictures import PictureProcess
from mediqa_node.web.server import Server

if TYPE_CHECKING:  # the benchmarks start a browser from here, without the folders of the tests
    from support.bench import Bench

CHROMIUM = "/usr/bin/chromium"


class Served:
    """The application over a bench's database; it can be stopped and started on the same port."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.pictures = PictureProcess(PictureFactory(bench.database.url, bench.spool.root))
        self.context = WebContext(
            database=bench.database,
            pictures=self.pictures,
            title="MEDIQA",
            software_version="0",
            data_dir=bench.spool.root.parent,
            exports=bench.spool.root.parent / "exports",
            peers=bench.node.peers,
            clock=lambda: bench.now,
        )
        self.port = 0
        self.start()

    def start(self) -> None:
        """Serve, on the port of the last time."""
        self._server = Server(create_app(self.context), host="127.0.0.1", port=self.port, proxies=())
        self.port = self._server.start()

    def stop(self) -> None:
        """Stop serving; streams are cut."""
        self._server.stop()

    def close(self) -> None:
        """End everything."""
        self.stop()
        self.pictures.close()

    @property
    def address(self) -> str:
        """Where it is served."""
        return f"http://127.0.0.1:{self.port}"

    def token(self, role: Role, name: str = "") -> str:
        """Return the token of a new session of a person with a role."""
        name = name or role.value
        with self.bench.database.write() as connection:
            users.add(connection, name, role, "no password", by="test", at=self.bench.now)
            user = users.find(connection, name)
            assert user is not None
            return sessions.open_session(connection, at=self.bench.now, address="127.0.0.1", user_id=user.id)


@dataclass
class Watched:
    """A browser context without any network but the node's, and what went wrong in it."""

    context: BrowserContext
    address: str
    outside: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def open(self, path: str = "/") -> Page:
        """Open a page in a new tab and note its messages and violations."""
        page = self.context.new_page()
        page.on("console", lambda message: self.messages.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.messages.append(f"error: {error}"))
        page.goto(self.address + path)
        return page


@contextmanager
def watched(browser: Browser, served: Served, role: Role, **options: Any) -> Iterator[Watched]:
    """Open a browser context that is signed in with a role."""
    context = browser.new_context(**options)
    found = Watched(context, served.address)

    def only_the_node(route: Any) -> None:
        if route.request.url.startswith(served.address):
            route.continue_()
        else:
            found.outside.append(route.request.url)
            route.abort()

    context.route("**/*", only_the_node)
    context.add_init_script(
        "addEventListener('securitypolicyviolation', e => console.error('CSP', e.violatedDirective, e.blockedURI))"
    )
    context.add_cookies([{"name": COOKIE, "value": served.token(role), "url": served.address}])
    try:
        yield found
    finally:
        context.close()


def launch(playwright: Playwright) -> Browser:
    """Start Debian's Chromium."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=["--disable-gpu"])
