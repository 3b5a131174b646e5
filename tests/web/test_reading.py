"""The reading room over real pages, a real database and real pictures: blinded, in an own order, nothing lost."""

import csv
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from support.reading_room import Site, real_series

from mediqa_node.domain.access import Role
from mediqa_node.domain.rating import Rating
from mediqa_node.exchange.rating_table import WRITTEN, Layout, read_ratings, write_ratings
from mediqa_node.storage import ratings, reading, retention
from mediqa_node.web import keys

FORM = {
    "name": "Autumn",
    "question": "Could you answer the question?",
    "points": "1 not usable\n2 poor\n3 acceptable\n4 good\n5 excellent",
    "direction": "higher_better",
    "criteria": ["overall"],
    "modality": "CT",
    "received": "all",
    "at_most": 60,
    "repeats": 20,
    "spread": "true",
    "seed": 7,
}


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder of a site with ten phantoms, and the time there."""
    folder = tmp_path_factory.mktemp("ten")
    made = Site(folder)
    made.phantoms(10)
    made.close()
    return folder, made.bench.now


@pytest.fixture
def site(ten: tuple[Path, float], tmp_path: Path) -> Iterator[Site]:
    """A copy of that site."""
    shutil.copytree(ten[0], tmp_path, dirs_exist_ok=True)
    made = Site(tmp_path)
    made.bench.now = ten[1]
    yield made
    made.close()


@pytest.fixture
def curie(site: Site) -> TestClient:
    return site.person("curie", Role.PHYSICIST)


def started(site: Site, curie: TestClient, *names: str, **changes: object) -> list[TestClient]:
    """Make a study, and return browsers of readers who have begun."""
    assert curie.post("/reading/new", data=FORM | changes).status_code == 303
    browsers = [site.person(name, Role.READER) for name in names]
    for browser in browsers:
        assert browser.post("/reading/1/start").status_code == 303
    return browsers


def position(page: str) -> int:
    found = re.search(r'name="position" value="(\d+)"', page)
    assert found is not None, page
    return int(found[1])


def places(site: Site, name: str) -> list[reading.Place]:
    with site.bench.database.read() as connection:
        me = reading.reader(connection, 1, name)
        assert me is not None
        return reading.places(connection, me.id)


def rate(browser: TestClient, at: int, overall: int, **more: object) -> int:
    return browser.post("/reading/1/ratings", data={"position": at, "overall": overall, **more}).status_code


def test_without_a_study_pages_say_what_to_do(site: Site, curie: TestClient):
    assert "New study" in curie.get("/reading").text
    assert "A physicist makes reading studies" in site.person("ada", Role.READER).get("/reading").text
    assert site.person("tom", Role.TECHNOLOGIST).get("/reading").status_code == 403


def test_only_who_may_make_studies_makes_one_or_sees_agreement(site: Site, curie: TestClient):
    [ada] = started(site, curie, "ada")

    refused = [ada.get("/reading/new"), ada.post("/reading/new", data=FORM), ada.get("/reading/1/agreement"),
               ada.get("/reading/1/ratings.csv"), ada.post("/reading/1/close"), ada.get("/calibrations")]  # fmt: skip

    assert [answer.status_code for answer in refused] == [403] * 6


def test_a_reader_sees_nothing_that_tells_which_series_it_is(site: Site, curie: TestClient):
    [ada] = started(site, curie, "ada")
    shown = places(site, "ada")[0]
    with site.bench.database.read() as connection:
        from mediqa_node.storage import worklist

        entry = worklist.find_by_uid(connection, shown.series_instance_uid)
    assert entry is not None

    page = ada.get("/reading/1").text

    words = (shown.series_instance_uid, entry.study_instance_uid, "CT_ROOM_1", "Abdomen", "Axial 5.0", "ACME",
             "Wasser", "20261120", "2026-11-20", f"/series/{entry.id}", "Scanner 64", "SYN", "A123")  # fmt: skip
    assert [word for word in words if word in page] == []
    for address in re.findall(r'data-values="([^"]+)"', page):
        answer = ada.get(address)
        assert answer.status_code == 200
        assert b"DICM" not in answer.content
        assert not any(word in str(answer.headers) for word in words)


def test_pictures_are_given_by_place_in_the_readers_own_order_and_to_nobody_else(site: Site, curie: TestClient):
    [ada, ben] = started(site, curie, "ada", "ben")
    eve = site.person("eve", Role.READER)

    of_ada, of_ben = (
        [browser.get(f"/reading/1/cases/{k}/slices/0").content for k in range(1, 13)] for browser in (ada, ben)
    )

    assert of_ada != of_ben
    assert sorted(set(of_ada)) == sorted(set(of_ben))
    assert ada.get("/reading/1/cases/13/slices/0").status_code == 404
    assert ada.get("/reading/1/cases/1/slices/9").status_code == 404
    assert eve.get("/reading/1/cases/1/slices/0").status_code == 409, "who has not begun has no order"
    assert TestClient(site.app, follow_redirects=False).get("/reading/1/cases/1/slices/0").status_code == 303


def test_a_study_for_some_readers_is_not_there_for_others(site: Site, curie: TestClient):
    started(site, curie, readers=["ada"])
    ada, ben = (site.person(name, Role.READER) for name in ("ada", "ben"))

    assert "Autumn" in ada.get("/reading").text
    assert "Autumn" not in ben.get("/reading").text
    assert ben.get("/reading/1").status_code == 404
    assert ben.post("/reading/1/start").status_code == 404


def test_addresses_of_pictures_differ_between_readers_so_that_a_shared_browser_mixes_nothing_up(
    site: Site, curie: TestClient
):
    addresses = [
        re.findall(r'data-values="([^"]+)"', browser.get("/reading/1").text)
        for browser in started(site, curie, "ada", "ben")
    ]

    assert not set(addresses[0]) & set(addresses[1])


def test_a_rating_is_kept_before_the_next_case_and_a_reload_goes_on_there(site: Site, curie: TestClient):
    [ada] = started(site, curie, "ada")

    assert position(ada.get("/reading/1").text) == 1
    assert rate(ada, 1, 4, comment="streaks", window="C 40 W 400", took_s="3.5") == 303
    assert position(ada.get("/reading/1").text) == 2
    assert "Continue, 1 of 12" in ada.get("/reading").text

    assert rate(ada, 1, 2) == 409, "another tab"
    assert rate(ada, 99, 2) == 404
    assert rate(ada, 2, 7) == 422
    assert ada.post("/reading/1/ratings", data={"position": 2}).status_code == 422
    assert position(ada.get("/reading/1").text) == 2


def test_what_is_taken_back_stays_on_record_and_the_case_comes_again_as_it_was_rated(site: Site, curie: TestClient):
    [ada] = started(site, curie, "ada")
    rate(ada, 1, 4)
    rate(ada, 2, 1, comment="cut off")

    assert ada.post("/reading/1/undo").status_code == 303
    again = ada.get("/reading/1").text
    assert position(again) == 2
    assert 'name="overall" value="1"' in again
    assert "cut off" in again
    rate(ada, 2, 3)

    with site.bench.database.read() as connection:
        from mediqa_node.storage.reading_tables import reading_ratings

        rows = connection.execute(reading_ratings.select().order_by(reading_ratings.c.id)).all()
        me = reading.reader(connection, 1, "ada")
        standing = {one.position: one.values for one in reading.readings(connection, me.id)}
    assert [(row.position, row.value, row.undone_at is not None) for row in rows] == [
        (1, 4, False), (2, 1, True), (2, 3, False),
    ]  # fmt: skip
    assert standing == {1: {"overall": 4}, 2: {"overall": 3}}
    for _ in range(2):
        ada.post("/reading/1/undo")
    assert ada.post("/reading/1/undo").status_code == 409


def test_a_case_that_cannot_be_rated_is_passed_and_no_rating_of_it_is_exported(site: Site, curie: TestClient):
    [ada] = started(site, curie, "ada")

    assert ada.post("/reading/1/ratings", data={"position": 1, "cannot": "true"}).status_code == 303
    assert position(ada.get("/reading/1").text) == 2
    rate(ada, 2, 4)

    assert len(curie.get("/reading/1/ratings.csv").text.splitlines()) == 2


def test_the_table_is_taken_by_the_import_as_it_is(site: Site, curie: TestClient):
    browsers = started(site, curie, "ada", "ben", criteria=["overall", "noise"])
    for browser in browsers:
        for at in range(1, 13):
            assert rate(browser, at, 1 + at % 5, noise=2, comment="=1+1" if at == 1 else "") == 303

    answer = curie.get("/reading/1/ratings.csv")

    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 2 * 2 * 12
    assert {row["reader_id"] for row in rows} == {"reader-1", "reader-2"}
    assert {row["repeat"] for row in rows} == {"1", "2"}
    assert rows[0]["comment"] == "'=1+1"
    assert "ada" not in answer.text
    table = read_ratings(answer.content, Layout(), {"series_uid": lambda uid: uid})
    assert table.problems == ()
    assert len(table.rows) == len(rows)


def test_a_table_reads_back_as_it_was_written():
    made = Rating(
        series_instance_uid="1.2.3", reader_id="reader-1", score=2.5, scale_min=0.0, scale_max=4.0,
        scale_direction="lower_better", study_id="reading-1", repeat=2, comment='a "quote", and more',
        read_at="2026-11-20T12:00:00+00:00", display_window="C 40 W 400",
    )  # fmt: skip

    table = read_ratings(write_ratings([made]), Layout(), {"series_uid": lambda uid: uid})

    assert [rating for _, rating in table.rows] == [made]
    assert table.unread == ()
    assert set(WRITTEN) >= {"series_uid", "reader_id", "score"}


def test_a_closed_study_is_used_for_training_and_can_be_taken_out_again(site: Site, curie: TestClient):
    [ada] = started(site, curie, "ada")
    for at in range(1, 6):
        rate(ada, at, 3)

    assert curie.post("/reading/1/import").status_code == 409, "not while it is open"
    curie.post("/reading/1/close")
    assert rate(ada, 6, 3) == 409
    assert ada.post("/reading/1/undo").status_code == 409
    assert curie.post("/reading/1/import").status_code == 303
    with site.bench.database.read() as connection:
        kept = ratings.kept(connection)
    assert {(row.rating.study_id, row.rating.score) for row in kept} == {("reading-1", 3.0)}
    assert "import 1" in curie.get("/reading/1/agreement").text

    curie.post("/reading/1/withdraw")
    with site.bench.database.read() as connection:
        assert ratings.kept(connection) == []
    assert curie.post("/reading/1/import").status_code == 303, "it may be used again"


def test_agreement_shows_readers_their_pairs_and_themselves(site: Site, curie: TestClient):
    browsers = started(site, curie, "ada", "ben", "cleo")
    with site.bench.database.read() as connection:
        rank = {uid: i for i, uid in enumerate(sorted(reading.cases(connection, 1)))}
    for shift, (name, browser) in enumerate(zip(("ada", "ben", "cleo"), browsers, strict=True)):
        for place in places(site, name):
            rate(browser, place.position, min(5, 1 + (rank[place.series_instance_uid] + shift // 2) // 2), took_s="4")

    page = curie.get("/reading/1/agreement").text

    assert page.count("12 of 12") == 3
    for words in ("ICC(2,1)", "Krippendorff", "ada and ben", "κ with self", "100 %", "10 series of 10 patients"):
        assert words in page, words


def test_agreement_of_a_study_that_hardly_began_says_so(site: Site, curie: TestClient):
    [ada] = started(site, curie, "ada")
    assert "No rating yet" in curie.get("/reading/1/agreement").text

    rate(ada, 1, 3)

    assert "1 readers: with fewer than 3" in curie.get("/reading/1/agreement").text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": " "}, "needs a name"),
        ({"points": "good\nbad"}, "unlike “good”"),
        ({"points": "1 only"}, "two points or more"),
        ({"points": "1 a\n10 b"}, "unlike “10 b”"),
        ({"modality": "US"}, "No scored series matches"),
        ({"examples": "99 = 3"}, "series 99 of the examples is unknown"),
        ({"examples": "1 = 9"}, "not on the scale"),
        ({"examples": "one = 2"}, "unlike “one = 2”"),
        ({"examples": "1 = 2\n1 = 3"}, "each example comes once"),
        ({"criteria": ["beauty"]}, "needs a criterion"),
    ],
)
def test_a_form_with_a_mistake_comes_back_with_what_is_wrong(site: Site, curie: TestClient, changes, words):
    answer = curie.post("/reading/new", data=FORM | changes)

    assert answer.status_code == 422
    assert words.lower() in answer.text.lower()
    assert "Could you answer the question?" in answer.text


def test_examples_are_shown_with_their_rating_and_are_no_cases(site: Site, curie: TestClient):
    [ada] = started(site, curie, "ada", examples="3 = 5\n1 = 1")

    page = ada.get("/reading/1").text

    assert re.findall(r"<b>(\d)</b> (\w+)", page)[:2] == [("1", "not"), ("5", "excellent")]
    assert "Case 1 of 10" in page, "8 cases, 2 of which come twice"
    assert ada.get("/reading/1/examples/1/thumb").content.startswith(b"\x89PNG")
    assert ada.get("/reading/1/examples/2/slices/0").status_code == 200
    assert ada.get("/reading/1/examples/3/thumb").status_code == 404


def test_series_on_which_readers_agreed_are_suggested_as_examples(site: Site, curie: TestClient):
    browsers = started(site, curie, "ada", "ben", repeats=0)
    alike = places(site, "ada")[0].series_instance_uid
    for name, browser, value in zip(("ada", "ben"), browsers, (2, 4), strict=True):
        for place in places(site, name):
            assert rate(browser, place.position, 5 if place.series_instance_uid == alike else value) == 303
    assert "readers of closed studies agree" not in curie.get("/reading/new").text

    curie.post("/reading/1/close")

    assert re.findall(r'class="mono">(\d+ = \d)<', curie.get("/reading/new").text) == [
        f"{site.numbers([alike])[0]} = 5"
    ]


def test_the_form_says_how_many_series_match_while_it_is_filled_in(site: Site, curie: TestClient):
    assert curie.get("/reading/matching?modality=CT&at_most=4&repeats=0").text == (
        "10 scored series match, 4 are drawn: 4 readings for each reader."
    )
    assert "Widen" in curie.get("/reading/matching?modality=MR&at_most=4").text


def test_images_of_an_open_study_outlive_the_retention_of_others(site: Site, curie: TestClient):
    started(site, curie, at_most=4, repeats=0)
    with site.bench.database.read() as connection:
        cases = set(reading.cases(connection, 1))
        old = {row.series_instance_uid for row in retention.expired(connection, site.bench.now + 1e7)}
    assert len(cases) == 4
    assert len(old) == 6
    assert not cases & old

    curie.post("/reading/1/close")
    with site.bench.database.read() as connection:
        assert cases <= {row.series_instance_uid for row in retention.expired(connection, site.bench.now + 1e7)}


def test_windows_of_ct_have_a_unit_and_those_of_mr_follow_each_case(tmp_path: Path):
    site = Site(tmp_path)
    site.receive(real_series(tmp_path, "mr_breast_ucsf06"))
    [ada] = started(site, site.person("curie", Role.PHYSICIST), "ada", modality="MR", repeats=0)

    page = ada.get("/reading/1").text
    site.close()

    assert 'data-kind="reading-MR"' in page
    assert "data-relative" in page
    assert page.count("data-values=") == 7


def test_no_key_of_the_reading_room_has_two_meanings():
    table = keys.of_page("reading")

    assert len({key.key for key in table}) == len(table)
    assert {keys.as_map("reading")[digit] for digit in "0123456789"} == {"rate"}
    assert keys.as_map("reading")["Backspace"] == "undo"


def test_what_a_physicist_does_is_audited(site: Site, curie: TestClient):
    [ada] = started(site, curie, "ada")
    rate(ada, 1, 3)
    curie.get("/reading/1/ratings.csv")
    curie.post("/reading/1/close")
    curie.post("/reading/1/import")
    curie.post("/reading/1/withdraw")

    with site.bench.database.read() as connection:
        from mediqa_node.storage import audit_trail

        actions = [event.action for event in audit_trail.search(connection)][::-1]
    assert actions == ["study.made", "reading.started", "study.downloaded", "study.closed", "study.imported",
                       "study.withdrawn"]  # fmt: skip
