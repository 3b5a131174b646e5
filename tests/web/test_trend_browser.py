"""The charts of the trends in Chromium: drawn without a message, saved as PNG, led by keys, and in both themes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from PIL import Image
from support.trend_cases import NOW, Scanner, add_around, sources, write_points
from support.workbench import SamePictures

from mediqa_node.domain.access import Role
from mediqa_node.pipeline.trends import TrendSweep
from mediqa_node.storage import sessions, trend_views, users
from mediqa_node.storage.database import Database
from mediqa_node.storage.migrate import upgrade
from mediqa_node.web.access import COOKIE
from mediqa_node.web.app import create_app
from mediqa_node.web.context import WebContext
from mediqa_node.web.server import Server

pytestmark = pytest.mark.peers
ZONE = ZoneInfo("Europe/Berlin")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, int]]:
    """Address, token of a physicist, and number of a chart."""
    folder = tmp_path_factory.mktemp("trends")
    database = Database(f"sqlite:///{folder / 'node.db'}")
    upgrade(database)
    with database.write() as connection:
        write_points(connection, sources(Scanner(score_step=lambda share: -2.5 if share > 0.95 else 0.0)))
    add_around(database)
    sweep = TrendSweep(database, time_zone=ZONE, clock=lambda: NOW)
    while sweep.run():
        pass
    context = WebContext(
        database=database, pictures=SamePictures(), title="MEDIQA", software_version="0.3", data_dir=folder,
        exports=folder, time_zone=ZONE, clock=lambda: NOW, idle_s=1e9,
    )  # fmt: skip
    with database.write() as connection:
        users.add(connection, "ada", Role.PHYSICIST, "-", by="test", at=NOW)
        user = users.find(connection, "ada")
        assert user is not None
        token = sessions.open_session(connection, at=NOW, address="", user_id=user.id)
        [chart] = trend_views.charts(connection, at_most=9, quantity="score")
    server = Server(create_app(context), host="127.0.0.1", port=0, proxies=())
    yield f"http://127.0.0.1:{server.start()}", token, chart.id
    server.stop()
    database.close()


@pytest.fixture
def page(served: tuple[str, str, int], browser: Any) -> Iterator[Any]:
    """A page that fails its test if the browser had anything to say."""
    address, token, _ = served
    context = browser.new_context(color_scheme="dark", viewport={"width": 1280, "height": 900})
    context.add_cookies([{"name": COOKIE, "value": token, "url": address}])
    context.add_init_script(
        "addEventListener('securitypolicyviolation', (e) => console.error('CSP ' + e.violatedDirective))"
    )
    made, said = context.new_page(), []
    made.on("console", lambda message: said.append(message.text))
    made.on("pageerror", lambda error: said.append(str(error)))
    made.on("request", lambda sent: said.append(sent.url) if not sent.url.startswith((address, "blob:")) else None)
    yield made
    context.close()
    assert said == []


def opens(page: Any, number: str) -> Any:
    """Expect the page of a series to be asked for. The points of these charts have no series behind them."""
    page.route("**/series/*", lambda route: route.fulfill(body="", content_type="text/html"))
    return page.expect_request(f"**/series/{number}")


def drawn(page: Any, address: str) -> None:
    page.goto(address)
    page.wait_for_selector('.plot[data-state="drawn"] canvas')


@pytest.mark.parametrize(
    "path", ["/trends/charts/{}", "/trends/scanners", "/trends/dose", "/trends/answers", "/trends/checkpoints",
             "/trends/constancy"],
)  # fmt: skip
def test_every_figure_is_drawn_without_a_message_or_a_violation(
    page: Any, served: tuple[str, str, int], path: str
) -> None:
    drawn(page, served[0] + path.format(served[2]))

    colours = page.evaluate(
        "() => { const c = document.querySelector('.plot canvas'); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; const s = new Set();"
        "for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 200) s.add(d[i] * 65536 + d[i + 1] * 256 + d[i + 2]);"
        "return s.size; }"
    )
    assert colours > 3


def test_the_picture_is_saved_as_png_with_its_title(page: Any, served: tuple[str, str, int], tmp_path: Path) -> None:
    drawn(page, f"{served[0]}/trends/charts/{served[2]}")

    with page.expect_download() as download:
        page.click("[data-image]")
    download.value.save_as(tmp_path / "chart.png")

    picture = np.asarray(Image.open(tmp_path / "chart.png").convert("L"))
    assert download.value.suggested_filename == "CT_1-Abdomen-routine-score.png"
    assert picture.shape[1] > 900
    assert picture[:44].max() > picture[:44].min() + 100  # the title is written


def test_colours_follow_the_theme(page: Any, served: tuple[str, str, int]) -> None:
    drawn(page, f"{served[0]}/trends/charts/{served[2]}")
    brightest = (
        "() => { const c = document.querySelector('.plot canvas'); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; let m = 255;"
        "for (let i = 0; i < d.length; i += 4) if (d[i + 3] === 255) m = Math.min(m, d[i]); return m; }"
    )
    dark = page.evaluate(brightest)

    page.click('[data-act="theme"]')
    page.wait_for_timeout(200)

    assert page.evaluate(brightest) != dark


def test_keys_lead_from_mark_to_mark_and_open_the_series(page: Any, served: tuple[str, str, int]) -> None:
    drawn(page, f"{served[0]}/trends/charts/{served[2]}")

    page.keyboard.press("m")
    tip = page.text_content(".plot-tip")
    assert "of 100" in tip
    number = tip.rsplit("series ", 1)[1]
    with opens(page, number):
        page.keyboard.press("Enter")


def test_a_point_under_the_mouse_says_what_it_is_and_a_click_opens_its_series(
    page: Any, served: tuple[str, str, int]
) -> None:
    drawn(page, f"{served[0]}/trends/charts/{served[2]}")
    page.keyboard.press("m")
    by_key = page.text_content(".plot-tip")
    ring = page.locator(".plot-tip").bounding_box()
    box = page.locator(".plot .u-over").first.bounding_box()
    said = ""
    for x in range(int(box["x"]) + 5, int(box["x"] + box["width"]), 12):
        page.mouse.move(x, box["y"] + 0.42 * box["height"])
        said = page.text_content(".plot-tip") if page.locator(".plot-tip").is_visible() else said
        if "series" in said and said != by_key:
            break

    assert box["y"] < ring["y"] + ring["height"] < box["y"] + box["height"] + 60
    number = said.rsplit("series ", 1)[1]
    with opens(page, number):
        page.mouse.down()
        page.mouse.up()


def test_dragging_over_the_chart_zooms_into_a_period_that_the_form_takes(
    page: Any, served: tuple[str, str, int]
) -> None:
    drawn(page, f"{served[0]}/trends/charts/{served[2]}")
    box = page.locator(".plot .u-over").first.bounding_box()

    page.mouse.move(box["x"] + 100, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 90, steps=4)
    page.mouse.up()
    page.wait_for_url("**from=2026-*")

    assert page.input_value('#baseline [name="from"]') == page.input_value('[data-filters] [name="from"]')


def test_a_tablet_shows_a_chart_without_scrolling_sideways(page: Any, served: tuple[str, str, int]) -> None:
    page.set_viewport_size({"width": 1024, "height": 768})

    for path in ("/trends", f"/trends/charts/{served[2]}", "/trends/dose", "/trends/answers"):
        page.goto(served[0] + path)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 1024
