"""A person at a keyboard, in a real browser: from the sign-in page to the downloaded table, without a mouse."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error
from support.reading_room import PASSWORD, Site, real_series
from support.waiting import until

from mediqa_node.domain.access import Role
from mediqa_node.storage import reading

pytestmark = pytest.mark.peers
_VIOLATIONS = """window.__violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.__violations.push(event.violatedDirective));"""


class Desk:
    """A browser, and what it complained about."""

    def __init__(self, page: Any, base: str) -> None:
        self.page, self.base = page, base
        self.messages: list[str] = []
        self.asked: list[str] = []
        page.add_init_script(_VIOLATIONS)
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url.removeprefix(base)))

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def sees(self, words: str) -> None:
        """Wait until words are on the page, and check that the policy was kept."""
        until(lambda: words in self.text(), f"the page shows {words!r}", within_s=20, every_s=0.05)
        assert self.page.evaluate("window.__violations") == []

    def case(self, position: int) -> None:
        """Wait until a case is on the page and takes keys."""
        self.sees(f"Case {position} of 3")
        until(
            lambda: self.value("document.activeElement.className") == "criterion", "the form has the focus", within_s=20
        )

    def text(self) -> str:
        """Return the text of the page, "" while it changes."""
        try:
            return str(self.page.inner_text("body"))
        except Error:
            return ""

    def requests(self) -> set[str]:
        """Return the addresses that the browser has asked for."""
        self.page.wait_for_timeout(1)  # the driver hears of them while it waits
        return set(self.asked)

    def value(self, script: str) -> Any:
        """Return what a script gives."""
        return self.page.evaluate(script)

    def focus(self, words: str) -> None:
        """Go on with Tab until what has the focus has these words."""
        for _ in range(40):
            if words in (
                self.value("document.activeElement === document.body ? '' : document.activeElement.textContent")
            ):
                return
            self.press("Tab")
        raise AssertionError(f"Tab reaches nothing with {words!r}")


@contextmanager
def desk(site: Site, browser: Browser) -> Iterator[Desk]:
    """Open a browser at the pages of a site."""
    with site.served() as base:
        page = browser.new_page(viewport={"width": 1440, "height": 900}, accept_downloads=True)
        made = Desk(page, base)
        yield made
        assert made.messages == []
        page.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site with two phantoms and a real CT; its physicist has made a study with two criteria."""
    made = Site(tmp_path)
    made.phantoms(3)
    made.receive(real_series(tmp_path, "ct_sts003_lowdose"))
    physicist = made.person("curie", Role.PHYSICIST)
    points = "1 not usable\n2 poor\n3 acceptable\n4 good"
    study = {"name": "Autumn", "points": points, "criteria": ["overall", "noise"], "repeats": 0, "examples": "3 = 2"}
    assert physicist.post("/reading/new", data=study).status_code == 303
    yield made
    made.close()


def sign_in(at: Desk) -> None:
    at.page.goto(f"{at.base}/reading")
    at.page.keyboard.type("curie")
    at.press("Tab")
    at.page.keyboard.type(PASSWORD)
    at.press("Enter")
    at.sees("Autumn")


def begin(at: Desk) -> None:
    at.press("Enter")
    at.sees("Start reading")
    at.press("Enter")
    at.case(1)


@pytest.mark.timeout(120)
def test_a_study_is_read_by_keyboard_alone_from_the_sign_in_page_to_the_table(
    site: Site, browser: Browser, tmp_path: Path
):
    with desk(site, browser) as at:
        sign_in(at)
        begin(at)
        ahead = json.loads(at.value("document.getElementById('rating').dataset.ahead"))
        until(lambda: set(ahead) <= at.requests(), "the slices of the next case are fetched", within_s=20)

        at.press("4", "Tab", "2", "Enter")
        at.case(2)
        at.press("Backspace")
        at.case(1)
        assert at.value("document.querySelectorAll('[aria-pressed=true][data-value]').length") == 2, "as it was rated"
        at.press("3", "Enter")
        at.case(2)

        at.press("Enter")
        at.sees("Not rated yet")
        at.press("9")
        at.sees("The scale goes from 1 to 4")
        at.press("1", "Tab", "1", "c")
        at.page.keyboard.type("cut off 5")
        at.press("Enter")
        at.case(3)
        at.page.reload()
        at.case(3)
        at.press("x")
        at.sees("All 3 read")

        at.focus("Agreement")
        at.press("Enter")
        at.sees("3 of 3")
        at.focus("Download the table")
        with at.page.expect_download() as download:
            at.press("Enter")
        download.value.save_as(tmp_path / "ratings.csv")

    with (tmp_path / "ratings.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["criterion"], row["score"], row["comment"]) for row in rows] == [
        ("overall", "3", ""), ("noise", "2", ""), ("overall", "1", "cut off 5"), ("noise", "1", "cut off 5"),
    ]  # fmt: skip
    assert all(row["display_window"].startswith("C ") for row in rows)


@pytest.mark.timeout(120)
def test_window_and_size_stay_from_case_to_case_and_an_example_never_covers_the_images(site: Site, browser: Browser):
    with desk(site, browser) as at:
        sign_in(at)
        begin(at)
        at.press("w", "w", "f", "ArrowRight")
        shown = "C 80 W 150"
        until(
            lambda: at.value("document.getElementById('window').textContent") == shown, "the window is set", within_s=20
        )

        at.press("3", "Tab", "3", "Enter")
        at.case(2)
        until(
            lambda: at.value("document.getElementById('window').textContent") == shown, "the window stays", within_s=20
        )
        assert at.value("document.getElementById('slices').classList.contains('is-large')")

        at.press("e")
        at.sees("Example: 2 poor")
        boxes = at.value(_BOXES)
        assert not any(_overlap(one, other) for i, one in enumerate(boxes) for other in boxes[:i]), boxes
        at.press("e")
        assert at.value("document.getElementById('beside').hidden")


_BOXES = """[...document.querySelectorAll('#room > *')].map((e) => {
  const { left, right, top, bottom } = e.getBoundingClientRect(); return [left, right, top, bottom];
})"""


def _overlap(one: list[float], other: list[float]) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("size", [(1024, 768), (1440, 900)])
def test_the_form_lies_beside_the_images_and_confirm_is_in_reach(site: Site, browser: Browser, size: tuple[int, int]):
    with desk(site, browser) as at:
        at.page.set_viewport_size({"width": size[0], "height": size[1]})
        sign_in(at)
        begin(at)
        images, form = at.value(_BOXES.replace("#room > *", "#room > :not([hidden])"))
        confirm = at.value("document.querySelector('.confirm').getBoundingClientRect().bottom")

        assert images[1] <= form[0]
        assert confirm <= size[1]


@pytest.mark.timeout(120)
def test_a_rating_that_could_not_be_kept_stays_in_the_form(site: Site, browser: Browser):
    with desk(site, browser) as at:
        sign_in(at)
        begin(at)
        at.press("4", "Tab", "2")
        with site.bench.database.write() as connection:
            reading.close(connection, 1, by="curie", at=site.bench.now)
        at.press("Enter")
        at.sees("This study was closed meanwhile")
        assert at.value("document.querySelectorAll('[aria-pressed=true][data-value]').length") == 2
        at.messages[:] = [text for text in at.messages if "409" not in text]  # the browser notes the answer
