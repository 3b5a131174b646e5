"""Templates, scripts and colours: nothing inline, little script, enough contrast, and no key with two meanings."""

import gzip
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from support.workbench import Site

from mediqa_node.domain.worklist import Entry
from mediqa_node.web import keys, pages, words
from mediqa_node.web.assets import VENDORED, asset

WEB = Path(pages.__file__).parent
TEMPLATES = sorted((WEB / "templates").glob("*.html"))
STATIC = WEB / "static"
SCRIPT_BUDGET = 100_000
OWN_SCRIPTS = sorted(path for path in STATIC.glob("*.js") if path.name not in VENDORED)


# ── templates and files ──────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "forbidden",
    [r"<script(?![^>]*\bsrc=)", r"<style", r"\sstyle\s*=", r"""[\s"']on[a-z]+\s*=""", r"hx-on", r"\bjs:",
     r"javascript:", r"hx-trigger=[^>]*\[", r"\|\s*safe\b", r"autoescape\s+false", r"srcdoc", r"<base\b", r"<iframe",
     r"<object", r"<embed", r"(src|href|action)=[\"']https?:", r"data:(?!image)[a-z]+/"],
)  # fmt: skip
def test_no_template_has_anything_inline_or_from_elsewhere(forbidden: str) -> None:
    found = [
        f"{path.name}: {match[0]}"
        for path in TEMPLATES
        for match in re.finditer(forbidden, path.read_text(encoding="utf-8"), re.IGNORECASE)
    ]

    assert not found


@pytest.mark.parametrize(
    "forbidden",
    [r"\beval\(", r"new Function", r"document\.write", r"setAttribute\(.on", r"\.on[a-z]+ =", r"https?://",
     r"\.cssText", r"setAttribute\(.style"],
)  # fmt: skip
def test_no_script_of_ours_needs_what_the_policy_forbids(forbidden: str) -> None:
    assert not [path.name for path in OWN_SCRIPTS if re.search(forbidden, path.read_text(encoding="utf-8"))]


def test_no_template_puts_a_value_where_quotes_do_not_hold_it() -> None:
    """A value in an attribute without quotes, or in JSON within one, is not made safe by escaping HTML."""
    attribute = re.compile(r"=\{\{")
    in_json = re.compile(r"""hx-(?:vals|headers|config)='[^']*"\{\{(?!\s*one\.id\s*\}\})[^']*'""")

    found = [
        f"{path.name}: {match[0]}"
        for path in TEMPLATES
        for pattern in (attribute, in_json)
        for match in pattern.finditer(path.read_text(encoding="utf-8"))
    ]

    assert not found


def test_files_of_others_are_unchanged() -> None:
    assert {name: hashlib.sha256((STATIC / name).read_bytes()).hexdigest() for name in VENDORED} == dict(VENDORED)


def test_every_file_of_others_is_pinned_and_has_its_licence() -> None:
    licences = (STATIC / "LICENCES.md").read_text(encoding="utf-8")
    minified = {path.name for path in STATIC.iterdir() if ".min." in path.name or path.suffix == ".woff2"}

    assert minified == set(VENDORED)
    assert not [name for name in VENDORED if name not in licences]


def scripts_of(page: str) -> list[str]:
    """Return the names of the scripts of a page."""
    return [address.rpartition("/")[2] for address in re.findall(r'<script src="([^"]+)"', page)]


def test_no_page_loads_more_than_100_kb_of_script(site: Site) -> None:
    admin, physicist = site.client("administrator"), site.client("physicist")
    number = site.add_series()
    paths = [path for _, path, _, _ in pages.TABS] + [f"/series/{number}", "/users", "/rooms", "/audit", "/account"]
    for path in paths:
        answer = next((one for one in (admin.get(path), physicist.get(path)) if one.status_code == 200), None)
        if answer is None:
            continue  # a part that is not built yet
        size = sum(len(gzip.compress((STATIC / name).read_bytes(), 9)) for name in scripts_of(answer.text))
        assert 0 < size <= SCRIPT_BUDGET, path


def test_browsers_keep_a_file_by_its_digest_and_ask_for_an_old_one(site: Site) -> None:
    browser = site.client()

    current, old = browser.get(asset("app.js")), browser.get("/static/0123456789ab/app.js")

    assert current.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert old.headers["cache-control"] == "no-cache"
    assert current.headers["content-type"].startswith("text/javascript")


# ── empty states ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/", "Send a series to MEDIQA by C-STORE"),
        ("/?q=nothing", "Clear the filters, or widen the period"),
        ("/operations", "Nothing waits"),
        ("/rooms", "No room has a tablet yet"),
        ("/audit?q=nothing", "Nothing of that kind is on record"),
    ],
)
def test_an_empty_page_says_what_to_do(site: Site, path: str, says: str) -> None:
    assert says in site.client("administrator").get(path).text


# ── words ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("scanner", "model", "shown"),
    [
        ("Discovery ST", "GE MEDICAL SYSTEMS Discovery ST", "GE"),
        ("MR 2", "Siemens Healthineers MAGNETOM Prisma Fit", "Siemens MAGNETOM Prisma Fit"),
        ("MR 2", "SIEMENS Prisma_fit", "Siemens Prisma_fit"),
        ("OP 1", "NIDEK NM-200D", "NIDEK NM-200D"),
        ("CT1", "", "CT1 AE"),
    ],
)
def test_a_machine_is_named_in_few_words(scanner: str, model: str, shown: str) -> None:
    entry = SimpleNamespace(scanner=scanner, model=model, sender="CT1 AE")
    assert words.machine(cast(Entry, entry)) == shown


def test_operations_names_each_process_that_has_stopped(site: Site) -> None:
    shown = site.client("administrator").get("/operations").text
    for role in ("receiver", "worker", "courier"):
        assert (f"The {role} has stopped" in shown) == (role not in site.context.running())


# ── colours ──────────────────────────────────────────────────────────────────

CSS = (STATIC / "app.css").read_text(encoding="utf-8")
PAPERS = ("bg", "surface", "raised")
ROWS = ("bg", "surface", "selected", "repeat-ground")
TEXT = [
    *((ink, paper) for ink in ("ink", "ink-2", "ink-3", "accent", "fine", "look", "repeat", "none")
      for paper in PAPERS),
    *((ink, row) for ink in ("ink", "ink-2", "ink-3", "look", "fine", "none", "repeat") for row in ROWS),
    ("look", "look-ground"), ("ink", "look-ground"), ("ink-3", "look-ground"), ("repeat", "repeat-ground"),
    ("on-accent", "accent"), ("on-repeat", "repeat-solid"), ("on-image", "image"),
]  # fmt: skip
GRAPHICS = [
    *((line, paper) for line in ("line-strong", "accent", "fine", "look", "repeat", "none") for paper in PAPERS),
    *(("band", paper) for paper in PAPERS),
    ("line-strong", "selected"), ("accent", "selected"), ("ink", "band"), ("repeat-solid", "repeat-ground"),
    ("repeat-solid", "bg"), ("look", "image"), ("accent", "image"), ("accent", "repeat-ground"),
]  # fmt: skip


def blocks() -> dict[str, dict[str, str]]:
    """Return the tokens of the dark theme, of the light one that was chosen, and of the light one by preference."""
    found = {}
    for name, selector in (
        ("dark", r"^:root \{"),
        ("chosen", r'^:root\[data-theme="light"\] \{'),
        ("preferred", r'^  :root:not\(\[data-theme="dark"\]\) \{'),
    ):
        body = re.search(selector + r"(.*?)^\s*\}", CSS, re.MULTILINE | re.DOTALL)
        assert body is not None, name
        found[name] = dict(re.findall(r"--([\w-]+):\s*([^;]+);", body[1]))
    return found


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour (WCAG 2.2)."""
    assert re.fullmatch(r"#[0-9a-f]{6}", colour), colour
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def too_faint(pairs: list[tuple[str, str]], least: float) -> Iterator[str]:
    """Yield the pairs of tokens with less contrast than asked for."""
    found = blocks()
    for theme in ("dark", "chosen"):
        tokens = found["dark"] | (found["chosen"] if theme == "chosen" else {})
        for ink, paper in dict.fromkeys(pairs):
            if (ratio := contrast(tokens[ink], tokens[paper])) < least:
                yield f"{theme}: {ink} on {paper} {ratio:.2f}"


def test_contrast_is_computed_as_in_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_text_has_a_contrast_of_at_least_4_5() -> None:
    assert not list(too_faint(TEXT, 4.5))


def test_borders_of_controls_and_graphics_have_a_contrast_of_at_least_3() -> None:
    assert not list(too_faint(GRAPHICS, 3.0))


def test_the_light_theme_is_the_same_chosen_or_preferred() -> None:
    found = blocks()

    assert found["chosen"] == found["preferred"]
    assert set(found["chosen"]) <= set(found["dark"])


def test_every_colour_of_text_is_in_the_table_and_every_token_exists() -> None:
    used = set(re.findall(r"(?<![\w-])color:\s*var\(--([\w-]+)\)", CSS))
    named = set(re.findall(r"var\(--([\w-]+)\)", CSS + "".join(path.read_text() for path in TEMPLATES)))
    after_tokens = CSS[CSS.index("box-sizing") : CSS.index("@media print")]

    assert used <= {ink for ink, _ in TEXT}
    assert named <= set(blocks()["dark"])
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b|rgba?\(", after_tokens)  # a colour that is no token


# ── keys ─────────────────────────────────────────────────────────────────────

PAGES_WITH_KEYS = [*keys.PAGES, ""]


@pytest.mark.parametrize("page", PAGES_WITH_KEYS)
def test_no_key_has_two_meanings(page: str) -> None:
    found = [key.key for key in keys.of_page(page)]

    assert len(found) == len(set(found))
    assert all(key.key == key.key.lower() for key in keys.of_page(page) if len(key.key) == 1)


def test_a_key_means_the_same_on_every_page_that_has_it() -> None:
    """But for digits, which are scores in the reading room and windows elsewhere."""
    meanings: dict[str, set[str]] = {}
    for page in keys.PAGES:
        for key in keys.of_page(page):
            if not key.key.isdigit():
                meanings.setdefault(key.key, set()).add(key.act)

    assert not {key: acts for key, acts in meanings.items() if len(acts) > 1 and not acts <= {"open", "confirm"}}


def test_every_key_is_in_the_sheet_of_its_page_and_no_other(site: Site) -> None:
    number = site.add_series()
    for page, path in (("worklist", "/"), ("series", f"/series/{number}"), ("", "/account")):
        text = site.client("physicist").get(path).text
        sheet = text.partition('class="keysheet">')[2].partition("</div>")[0]
        shown = re.findall(r"<kbd>([^<]+)</kbd><span>([^<]+)</span>", sheet)

        assert shown == [(key.cap, key.words) for key in keys.of_page(page)], path


@pytest.mark.parametrize(("page", "path"), [("worklist", "/"), ("series", "/series/1"), ("", "/account")])
def test_every_key_does_something_on_its_page(site: Site, page: str, path: str) -> None:
    site.add_series()
    text = site.client("physicist").get(path).text
    code = "\n".join((STATIC / name).read_text() for name in scripts_of(text) if name not in VENDORED)
    handled = set(re.findall(r"acts\.(\w+) =", code)) | set(re.findall(r'"(\w+)"', code))
    handled |= {f"window{i}" for i in range(5)} if "acts[`window${i" in code else set()

    assert not {key.act for key in keys.of_page(page)} - handled


def test_every_button_that_names_an_act_has_it_on_its_page(site: Site) -> None:
    site.add_series()
    for path in ("/", "/series/1", "/account", "/operations"):
        text = site.client("physicist").get(path).text
        code = "\n".join((STATIC / name).read_text() for name in scripts_of(text) if name not in VENDORED)

        assert set(re.findall(r'data-act="(\w+)"', text)) <= set(re.findall(r"acts\.(\w+) =", code)), path


def test_hints_beside_the_sheet_name_keys_of_the_page(site: Site) -> None:
    site.add_series()
    for page, path in (("worklist", "/"), ("series", "/series/1")):
        text = site.client("physicist").get(path).text
        hints = re.findall(r"<kbd>([^<]+)</kbd>", text.partition('<span class="keys">')[2].partition("</span>")[0])

        assert hints
        assert set(hints) <= {key.cap for key in keys.of_page(page)}
