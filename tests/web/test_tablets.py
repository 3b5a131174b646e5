"""A room's tablet: enrolled by a code that works once, bound to its scanners on every route, revocable."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from support.workbench import Site, is_in

from mediqa_node.storage import sessions, worklist
from mediqa_node.web.access import COOKIE

CODE = 'class="code">'


def make_code(site: Site, *scanners: str) -> str:
    page = site.client("administrator").post("/rooms", data={"name": "CT room 2", "scanner": list(scanners)}).text
    return page.partition(CODE)[2][:11]


@pytest.fixture
def two(site: Site) -> tuple[int, int]:
    """The numbers of a series of CT1 and of one of CT2."""
    return site.add_series(), site.add_series(scanner="CT2", description="HIDDEN", why="HIDDEN", model="HIDDEN")


def test_a_code_works_once(site: Site) -> None:
    code = make_code(site, "CT1")
    tablet, thief = site.client(), site.client()

    first = tablet.post("/enrol", data={"code": code.lower()})
    second = thief.post("/enrol", data={"code": code})

    assert (first.status_code, second.status_code) == (303, 401)
    assert is_in(tablet)
    assert not is_in(thief)
    assert "max-age=34560000" in first.headers["set-cookie"].lower()
    assert [(one.by, one.outcome) for one in site.events("enrol")] == [("CT room 2", "done"), ("", "refused")]


def test_a_code_works_once_even_at_the_same_moment(site: Site) -> None:
    code = make_code(site, "CT1")
    browsers = [site.client() for _ in range(6)]
    start = threading.Barrier(6)

    def enrol(i: int) -> int:
        start.wait()
        return browsers[i].post("/enrol", data={"code": code}).status_code

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(enrol, range(6))) == [303] + [401] * 5


def test_a_code_is_valid_for_fifteen_minutes(site: Site) -> None:
    code = make_code(site, "CT1")
    site.clock.advance(901)

    assert site.client().post("/enrol", data={"code": code}).status_code == 401


def test_a_revoked_room_loses_its_tablet_and_its_code(site: Site) -> None:
    code, tablet = make_code(site, "CT1"), site.tablet("CT1")
    admin = site.client("administrator")
    with site.database.read() as connection:
        numbers = [one.id for one in sessions.rooms_of_site(connection)]

    for number in numbers:
        admin.post(f"/rooms/{number}/revoke")

    assert not is_in(tablet)
    assert site.client().post("/enrol", data={"code": code}).status_code == 401
    assert admin.post(f"/rooms/{numbers[0]}/revoke").status_code == 404
    assert [one.object for one in site.events("room.revoked")] == [str(one) for one in numbers]


def test_a_tablet_has_no_idle_time_out(site: Site) -> None:
    tablet = site.tablet("CT1")
    site.clock.advance(30 * 86_400)

    assert is_in(tablet)


def test_enrolling_ends_the_session_of_whoever_held_the_tablet(site: Site) -> None:
    code, browser = make_code(site, "CT1"), site.client("administrator")
    before = browser.cookies[COOKIE]

    browser.post("/enrol", data={"code": code})

    assert browser.get("/users").status_code == 403
    assert not is_in(site.browser(before))


@pytest.mark.parametrize("path", [
    "/series/{}", "/series/{}/report", "/series/{}/1/thumb", "/series/{}/1/scout", "/series/{}/1/slices/0",
    "/series/{}/1/maps/0", "/api/v1/series/{}",
])  # fmt: skip
def test_a_series_of_another_scanner_is_no_series_for_a_tablet(site: Site, two: tuple[int, int], path: str) -> None:
    own, other = two
    tablet = site.tablet("CT1")

    seen, hidden, missing = (tablet.get(path.format(number)) for number in (own, other, 999))

    assert seen.status_code == 200
    assert hidden.status_code == missing.status_code == 404
    assert hidden.content == missing.content  # nothing tells that there is one


@pytest.mark.parametrize("path", [
    "/", "/?received=all", "/?scanner=CT2", "/?q=HIDDEN", "/?q=%25", "/?q=_", "/?category=repeat&open=1",
    "/rows?after=0", "/rows?scanner=CT2", "/api/v1/series", "/api/v1/series?scanner=CT2&received=all",
    "/series/1", "/account",
])  # fmt: skip
def test_no_list_shows_a_tablet_another_scanner(site: Site, two: tuple[int, int], path: str) -> None:
    person, tablet = site.client("physicist"), site.tablet("CT1")

    body = tablet.get(path).text

    assert "HIDDEN" not in body.replace('value="HIDDEN"', "").replace("q=HIDDEN", "")
    assert "CT2" not in body.replace('value="CT2"', "").replace("<option selected>CT2", "").replace("scanner=CT2", "")
    assert "HIDDEN" in person.get("/").text


def test_counts_and_neighbours_are_those_of_the_tablets_scanners(site: Site, two: tuple[int, int]) -> None:
    own, _ = two
    site.add_series()
    page = site.tablet("CT1").get("/").text

    assert 'All <span class="n">2</span>' in page
    assert 'Unanswered <span class="look">2</span>' in page
    assert f'id="newer" href="/series/{own + 2}"' in site.tablet("CT1").get(f"/series/{own}").text


def test_a_tablet_answers_with_initials_for_its_own_scanners(site: Site, two: tuple[int, int]) -> None:
    own, other = two
    tablet = site.tablet("CT1")

    without = tablet.post(f"/series/{own}/answer", data={"kind": "repeated", "initials": " 1 "})
    given = tablet.post(f"/series/{own}/answer", data={"kind": "repeated", "initials": "ab"})
    others = tablet.post(f"/series/{other}/answer", data={"kind": "repeated", "initials": "ab"})

    assert (without.status_code, given.status_code, others.status_code) == (422, 200, 404)
    assert [(one.by, one.role, one.detail) for one in site.events("answer")] == [("room", "room", "repeated AB")]


def test_a_tablet_never_learns_whom_the_images_name(site: Site) -> None:
    number = site.add_series()
    site.add_patient(number, name="Doe^Jane", accession_number="ACC4711")
    site.add_report(number, b"Doe^Jane")
    tablet = site.tablet("CT1")

    answers = [
        tablet.post(f"/series/{number}/patient"),
        tablet.post("/account/break-glass", data={"reason": "no particular reason"}),
        tablet.post(f"/series/{number}/patient"),
        tablet.get(f"/series/{number}/report.dcm"),
    ]

    assert [one.status_code for one in answers] == [403] * 4
    assert "Doe" not in tablet.get(f"/series/{number}").text
    assert len(site.events(outcome="refused")) == 4


# ── the stream, on a socket ──────────────────────────────────────────────────


def events(lines: Iterator[str]) -> Iterator[dict[str, object]]:
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line[6:])


def touch(site: Site, number: int, **values: object) -> None:
    """Change an entry, as the courier does."""
    with site.database.write() as connection:
        worklist.save(connection, f"1.2.3.{number}", values or {"why": f"changed {number}"})


def test_the_stream_shows_a_tablet_its_own_scanners_only(site: Site, two: tuple[int, int]) -> None:
    own, other = two
    cookies = {COOKIE: site.tablet_token("CT1")}
    with (
        site.served() as address,
        httpx.stream("GET", f"{address}/live?after=2", cookies=cookies, timeout=10) as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines) == "retry: 1000"
        touch(site, other)
        touch(site, own)
        message = next(events(lines))

    assert message["id"] == own
    assert "HIDDEN" not in json.dumps(message)


@pytest.mark.parametrize("statement", [
    "UPDATE rooms SET revoked_at = 1", "UPDATE sessions SET ended_at = 1", "UPDATE rooms SET scanners = '[\"CT2\"]'",
])  # fmt: skip
def test_a_stream_ends_with_the_rights_that_it_rests_on_however_busy_the_node(
    site: Site, two: tuple[int, int], statement: str
) -> None:
    cookies = {COOKIE: site.tablet_token("CT1")}
    with (
        site.served() as address,
        httpx.stream("GET", f"{address}/live?after=2", cookies=cookies, timeout=10) as stream,
    ):
        found = events(stream.iter_lines())
        touch(site, two[0])
        first = next(found)
        with site.database.write() as connection:
            connection.exec_driver_sql(statement)
        touch(site, two[0])
        touch(site, two[1])
        second = next(found)

    assert first["id"] == two[0]
    assert second.get("over") or second["id"] == two[1]


def test_a_stream_keeps_nobody_signed_in(site: Site, two: tuple[int, int]) -> None:
    cookies = {COOKIE: site.token("physicist")}
    with (
        site.served() as address,
        httpx.stream("GET", f"{address}/live?after=2", cookies=cookies, timeout=10) as stream,
    ):
        found = events(stream.iter_lines())
        for _ in range(3):
            site.clock.advance(500)
            touch(site, two[0])
            assert next(found)["id"] == two[0]
        site.clock.advance(500)
        touch(site, two[0])
        assert next(found) == {"over": True}


def test_a_session_opens_eight_streams_and_no_more(site: Site) -> None:
    cookies = {COOKIE: site.token("reader")}
    with site.served() as address, httpx.Client(base_url=address, cookies=cookies, timeout=10) as client:
        request = client.build_request("GET", "/live")
        streams = [client.send(request, stream=True) for _ in range(8)]
        bodies = [stream.iter_raw() for stream in streams]
        for body in bodies:
            next(body)

        refused = client.get("/live")
        other = httpx.get(f"{address}/", cookies={COOKIE: site.token("physicist")})
        for stream in streams:
            stream.close()

    assert [one.status_code for one in streams] == [200] * 8
    assert refused.status_code == 429
    assert refused.headers["retry-after"]
    assert other.status_code == 200
