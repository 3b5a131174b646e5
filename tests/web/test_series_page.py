"""The page of a series in a real browser: slices, windows, maps, and what it says about a series."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from support.bench import Bench
from support.series import ct_series, series_uid
from support.served import Served, watched

from mediqa_node.domain.access import Role

pytestmark = pytest.mark.peers
PATIENCE_MS = 20_000


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A node with a CT, a photograph and a localizer."""
    bench = Bench(tmp_path / "bench")
    ct = ct_series(
        tmp_path / "ct", "ct", slices=range(12), size_px=512, StationName="CT1", WindowCenter=50, WindowWidth=350
    )
    scout = ct_series(tmp_path / "scout", "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], StationName="CT1")
    for i, paths in enumerate((ct, scout)):
        bench.receive_all(paths, association=f"a{i}")
        bench.pass_time(20)
    return bench


def number(bench: Bench, name: str) -> int:
    return bench.entry(series_uid(ct_series_paths(bench, name))).id


def ct_series_paths(bench: Bench, name: str) -> list[Path]:
    return sorted((bench.spool.root.parent.parent / name).glob("*.dcm"))


def drawn(page: Page) -> None:
    """Wait until all slices are drawn."""
    for canvas in page.locator(".slice[data-values] canvas.values").all():
        expect(canvas).to_have_attribute("width", "512", timeout=PATIENCE_MS)


def level(page: Page, index: int = 0) -> int:
    """Return the gray level in the middle of a slice."""
    return int(
        page.evaluate(
            """index => {
                const canvas = document.querySelectorAll('.slice[data-values] canvas.values')[index];
                const one = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
                one.drawImage(canvas, -canvas.width / 2, -canvas.height / 2);
                return one.getImageData(0, 0, 1, 1).data[0];
            }""",
            index,
        )
    )


def test_seven_slices_follow_one_window_by_key_button_and_drag(
    bench: Bench, browser: Browser, serving: Callable[[Bench], Served]
) -> None:
    served = serving(bench)
    with watched(browser, served, Role.PHYSICIST, viewport={"width": 1360, "height": 900}) as found:
        page = found.open(f"/series/{number(bench, 'ct')}")
        drawn(page)
        assert page.locator(".slice[data-values]").count() == 7
        soft = level(page)
        page.keyboard.press("4")
        expect(page.locator("#window")).to_have_text("C 400 W 1800")
        bone = level(page)
        page.keyboard.press("0")
        expect(page.locator("#window")).to_have_text("C 50 W 350")
        box = page.locator(".slice[data-values] .view").first.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 40, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + 90, box["y"] + 40, steps=4)
        page.mouse.up()

        assert soft != bone, "water is darker in a window for bone"
        expect(page.locator("#window")).not_to_have_text("C 50 W 350")
        redraw_ms = float(page.locator("#slices").get_attribute("data-redraw") or "nan")
        print(f"seven slices of 512 x 512 redrawn in {redraw_ms:.0f} ms")  # noqa: T201 (a figure of the issue)
        window = page.locator("#window").inner_text()
        page.reload()
        drawn(page)
        expect(page.locator("#window")).to_have_text(window)
        assert found.messages == found.outside == []


def test_the_patch_map_comes_and_goes_by_key(
    bench: Bench, browser: Browser, serving: Callable[[Bench], Served]
) -> None:
    served = serving(bench)
    with watched(browser, served, Role.PHYSICIST) as found:
        page = found.open(f"/series/{number(bench, 'ct')}")
        drawn(page)
        page.keyboard.press("o")
        expect(page.locator("canvas.map").last).to_have_attribute("data-drawn", "1", timeout=PATIENCE_MS)
        expect(page.locator("canvas.map").first).to_be_visible()
        page.keyboard.press("o")
        expect(page.locator("canvas.map").first).to_be_hidden()
        assert found.messages == []


def test_a_series_without_a_score_says_why(bench: Bench, browser: Browser, serving: Callable[[Bench], Served]) -> None:
    served = serving(bench)
    with watched(browser, served, Role.TECHNOLOGIST) as found:
        page = found.open(f"/series/{number(bench, 'scout')}")

        expect(page.locator("main")).to_contain_text("Why was this not scored?")
        expect(page.locator("main")).to_contain_text("LOCALIZER")
        assert page.locator(".slice").count() == 0
        assert found.messages == []


def test_arrows_and_brackets_move_and_escape_nothing(
    bench: Bench, browser: Browser, serving: Callable[[Bench], Served]
) -> None:
    served = serving(bench)
    with watched(browser, served, Role.PHYSICIST) as found:
        page = found.open(f"/series/{number(bench, 'ct')}?received=all")
        drawn(page)
        page.keyboard.press("ArrowRight")
        expect(page.locator('.slice[aria-current="true"] .place')).to_contain_text("2/7")
        page.keyboard.press("f")
        expect(page.locator(".slice[data-values]").first).to_be_hidden()
        page.keyboard.press("[")
        page.wait_for_url(f"**/series/{number(bench, 'scout')}?received=all")
        assert found.messages == []


def test_a_photograph_is_shown_in_colour(browser: Browser, serving: Callable[[Bench], Served], tmp_path: Path) -> None:
    bench = Bench(tmp_path / "bench")
    paths = [Path(str(files("mediqa_node") / "reference" / "op_fundus" / "000.dcm"))]
    bench.receive_all(paths)
    bench.pass_time(20)
    served = serving(bench)
    with watched(browser, served, Role.PHYSICIST) as found:
        page = found.open(f"/series/{bench.entry(series_uid(paths)).id}")
        expect(page.locator(".slice[data-values] img")).to_be_visible(timeout=PATIENCE_MS)
        assert found.messages == []
