"""What holds for every request: the same-origin rule, the headers of every answer, sizes, and no error 500."""

import json
import urllib.parse
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers
from starlette.testclient import TestClient
from support.workbench import ORIGIN, PASSWORD, Site, is_in, routes_of

from mediqa_node.storage.database import Database
from mediqa_node.web.guards import CONTENT_SECURITY_POLICY, LARGEST_BODY, is_same_origin

NOTHING: dict[str, str] = {}


def headers(**given: str) -> Headers:
    return Headers({name.replace("_", "-"): value for name, value in given.items()})


# ── same origin ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "is_same"),
    [
        ({"sec_fetch_site": "same-origin"}, True),
        ({"sec_fetch_site": "none"}, True),
        ({"sec_fetch_site": "same-site"}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": ""}, False),
        ({"sec_fetch_site": "SAME-ORIGIN, cross-site"}, False),
        ({"sec_fetch_site": "cross-site", "origin": "http://node.test"}, False),
        ({"sec_fetch_site": "cross-site", "authorization": "Bearer x"}, False),
        ({"origin": "http://node.test"}, True),
        ({"origin": "https://node.test"}, True),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": "http://"}, False),
        ({"origin": "http://["}, False),
        ({"origin": "node.test"}, False),
        ({"origin": "http://node.test:8105"}, False),
        ({"origin": "http://node.test.evil.test"}, False),
        ({"origin": "http://evil.test/node.test"}, False),
        ({"origin": "http://node.test@evil.test"}, False),
        ({"origin": "http://NODE.test "}, False),
        ({"cookie": "mediqa=x"}, False),
        ({"cookie": "theme=dark"}, False),
        ({"cookie": "mediqa=x", "authorization": "Bearer x"}, False),
        ({"authorization": "Bearer x"}, True),
        (NOTHING, True),
    ],
)
def test_a_change_comes_from_a_page_of_this_node(given: dict[str, str], is_same: bool) -> None:
    assert is_same_origin(headers(host="node.test", **given), "http") is is_same


def test_a_page_over_plain_http_changes_nothing_on_a_node_behind_tls() -> None:
    assert not is_same_origin(headers(host="node.test", origin="http://node.test"), "https")
    assert is_same_origin(headers(host="node.test", origin="https://node.test"), "https")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "post"])
def test_every_method_that_may_change_something_is_guarded(site: Site, method: str) -> None:
    browser = site.client("administrator", headers={"sec-fetch-site": "cross-site"})

    answer = browser.request(method, "/sign-out")

    assert answer.status_code == 403
    assert "another site" in answer.json()["detail"]
    assert is_in(site.browser(browser.cookies["mediqa"]))


def test_no_route_changes_anything_for_another_site(site: Site) -> None:
    browser = site.client("administrator", headers={"origin": "https://evil.test"})

    for method, path in routes_of(site.app):
        if method not in ("GET", "OPTIONS"):
            assert browser.request(method, path.replace("{", "").replace("}", "")).status_code == 403, path


# ── headers ──────────────────────────────────────────────────────────────────


def assert_guarded(answer: Any, path: object = "") -> None:
    """Assert that an answer has every header that it must have."""
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY, path
    assert answer.headers["x-content-type-options"] == "nosniff", path
    assert answer.headers["referrer-policy"] == "same-origin", path
    assert answer.headers["cross-origin-opener-policy"] == "same-origin", path
    assert answer.headers["cross-origin-resource-policy"] == "same-origin", path
    assert "access-control-allow-origin" not in answer.headers, path
    assert "server" not in answer.headers, path
    kept = answer.headers["cache-control"]
    if answer.status_code == 200 and str(path).startswith("/static/"):
        return
    assert kept == "no-store" or (kept.startswith("private") and answer.headers["vary"] == "Cookie"), path


def test_the_policy_is_that_of_the_specification() -> None:
    assert CONTENT_SECURITY_POLICY == (
        "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
    )


def test_every_answer_has_the_headers(site: Site) -> None:
    number = site.add_series()
    site.add_report(number)
    admin, nobody = site.client("administrator"), site.client()
    paths = [path for method, path in routes_of(site.app) if method == "GET" and path != "/live"]
    filled = {"{number}": str(number), "{revision}": "1", "{index}": "0", "{digest}": "0", "{name}": "app.css"}
    for path in [*paths, "/nowhere", "/api/v1/nowhere", "/series/0", "/static/0/none.js", "/?before=x"]:
        at = path
        for name, value in filled.items():
            at = at.replace(name, value)
        for browser in (admin, nobody):
            assert_guarded(browser.get(at), at)
            assert_guarded(browser.get(at, headers={"hx-request": "true"}), at)
            for method in ("PUT", "OPTIONS"):
                assert_guarded(browser.request(method, at), at)
            assert_guarded(browser.request("PUT", at, headers={"origin": "null"}), at)


def test_an_error_that_nobody_foresaw_is_answered_with_the_headers_and_without_its_text(site: Site) -> None:
    @site.app.get("/breaks")
    def breaks() -> None:
        raise RuntimeError("Doe^Jane")

    answer = site.client("administrator").get("/breaks")

    assert answer.status_code == 500
    assert_guarded(answer)
    assert "Doe" not in answer.text
    assert "RuntimeError" not in answer.text


def test_without_a_database_pages_and_the_api_say_so(site: Site, tmp_path: Path) -> None:
    browser = site.client("reader")
    object.__setattr__(site.context, "database", Database(f"sqlite:///{tmp_path}"))  # a folder

    page, api = browser.get("/"), browser.get("/api/v1/series")

    assert (page.status_code, api.status_code) == (503, 503)
    assert "database does not answer" in page.text
    assert_guarded(page)
    assert str(tmp_path) not in page.text + api.text


def test_a_wrong_method_names_the_right_one(site: Site) -> None:
    assert "GET" in site.client("reader").put("/account").headers["allow"]


# ── sizes ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("length", [str(LARGEST_BODY + 1), "9" * 40, "-1", "1e3", "²", "", "1, 1"])
def test_a_body_without_a_plain_length_is_refused(site: Site, length: str) -> None:
    answer = site.client().post("/sign-in", headers={"content-length": length.encode("latin-1")})

    assert answer.status_code == 413


def test_a_body_in_pieces_is_refused_before_it_is_read(site: Site) -> None:
    with site.served() as address:
        connection = HTTPConnection(address.removeprefix("http://"), timeout=10)
        connection.putrequest("POST", "/sign-in")
        connection.putheader("transfer-encoding", "chunked")
        connection.endheaders()
        answer = connection.getresponse()

    assert answer.status == 413


def test_the_largest_body_is_still_read(site: Site) -> None:
    browser = site.client("administrator")
    padding = "x" * (LARGEST_BODY - 200)

    assert browser.post("/users/1", data={"what": "nothing", "padding": padding}).status_code == 422


# ── nothing that is sent is an error of the node ─────────────────────────────

NUMBERS = (
    "0",
    "-1",
    "1.5",
    "1e9",
    "²",
    "١",
    "１",
    "2147483648",
    "9" * 30,
    "%00",
    "%2e%2e",
    "..%2f..%2fnode.db",
    "null",
)
TEXTS = ("%00", "%ff%fe", "%ed%a0%80", "%f0%9f%92%a9", "%25", "_", "'", "%22%3E", "²", "9999-12-31", "0001-01-01",
         "%0d%0aset-cookie:x=y", "a" * 5000, "%E2%80%AE", "[]", "{{7*7}}", "$(id)", "%", "%zz", "+" * 60)  # fmt: skip

A_FILE = '--x\r\ncontent-disposition: form-data; name="name"; filename="a"\r\n\r\nb\r\n--x--'


@pytest.fixture
def admin(site: Site) -> TestClient:
    """An administrator, and a series to look at."""
    number = site.add_series()
    site.add_report(number)
    return site.client("administrator")


def test_no_number_in_an_address_is_an_error_of_the_node(site: Site, admin: TestClient) -> None:
    for method, path in routes_of(site.app):
        if "{" not in path:
            continue
        for number in NUMBERS:
            at = "/".join(number if part.startswith("{") else part for part in path.split("/"))
            answer = admin.request(method, at)
            assert answer.status_code < 500, at
            assert "set-cookie" not in answer.headers


def test_no_text_in_a_query_is_an_error_of_the_node(site: Site, admin: TestClient) -> None:
    queries = {"/": "q received category before open", "/rows": "after", "/series/1": "scanner", "/audit": "q before"}
    queries |= {"/labels": "state reason before", "/api/v1/series": "q at_most received", "/api/v1/audit": "q"}
    for path, names in queries.items():
        for text in TEXTS if path in ("/", "/api/v1/series") else TEXTS[:10]:
            for name in names.split():
                answer = admin.get(f"{path}?{name}={text}")
                assert answer.status_code < 500, (path, name, text)
                assert "x" not in dict(answer.cookies)
    for path in ("/sign-in", "/enrol"):
        for text in TEXTS:
            assert site.client().get(f"{path}?next={text}&code={text}").status_code < 500, (path, text)


def test_no_form_is_an_error_of_the_node(site: Site, admin: TestClient) -> None:
    fields = ("name", "password", "next", "code", "role", "what", "value", "scanner", "label", "reason", "old", "new",
              "kind", "initials", "shape", "action", "which", "payload", "since", "until", "modality")  # fmt: skip
    kinds = {"content-type": "application/x-www-form-urlencoded"}
    for method, path in routes_of(site.app):
        if method != "POST" or path in ("/sign-out", "/account/password"):
            continue
        at = path.replace("{", "").replace("}", "")
        at = "/".join("1" if part.endswith(("number", "_id")) else part for part in at.split("/"))
        for text in TEXTS:
            site.clock.advance(60)  # no limit of attempts in between
            body = "&".join(f"{name}={text}" for name in fields)
            assert admin.post(at, content=body, headers=kinds).status_code < 500, (at, text)
        for kind, body in (
            ("application/json", "{"),
            ("multipart/form-data; boundary=x", "--x\r\n\r\n--y"),
            ("multipart/form-data", "x"),
            ("multipart/form-data; boundary=x", A_FILE),
            ("text/plain", "name=a"),
            ("application/x-www-form-urlencoded; charset=utf-7", "name=a"),
        ):  # fmt: skip
            assert admin.post(at, content=body, headers={"content-type": kind}).status_code < 500, (at, kind)


@pytest.mark.parametrize(
    "odd",
    [
        {"cookie": "mediqa=" + "x" * 4000},
        {"cookie": "mediqa=\xff; theme=\xff"},
        {"cookie": "theme=<script>; mediqa"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer \xff\xfe"},
        {"authorization": "Basic eDp5"},
        {"last-event-id": "²"},
        {"accept-encoding": "\xff"},
        {"host": ""},
        {"host": "evil.test"},
        {"content-type": "\xff"},
        {"hx-request": "\xff"},
        {"x-forwarded-for": "<script>"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/v1/series", "/nowhere", "/sign-in", "/static/0/app.css"])
def test_no_header_is_an_error_of_the_node(site: Site, odd: dict[str, str], path: str) -> None:
    client = TestClient(site.app, ORIGIN, follow_redirects=False)

    answer = client.get(path, headers={name: value.encode("latin-1") for name, value in odd.items()})

    assert answer.status_code < 500
    assert "evil.test" not in answer.headers.get("location", "")


def test_odd_event_numbers_start_a_stream_like_none(site: Site) -> None:
    cookies = {"mediqa": site.token("reader")}
    with site.served() as address:
        for number in (b"\xb2", b"-1", b"99999999999999", b"x" * 100, b"\xd9\xa1"):
            with httpx.stream("GET", f"{address}/live", cookies=cookies, headers={"last-event-id": number}) as stream:
                assert next(stream.iter_lines()) == "retry: 1000"
        assert httpx.get(f"{address}/live?after={'9' * 30}", cookies=cookies).status_code == 422


@pytest.mark.parametrize(
    "target",
    ["//evil.test/", "/..%2f..%2fetc/passwd", "/static/0/..%2fapp.py", "/static/0/%2e%2e", "/%00", "/static//app.css",
     "*", "/series/1/../../users", "/;/users"],
)  # fmt: skip
def test_odd_paths_lead_nowhere(site: Site, target: str) -> None:
    with site.served() as address:
        connection = HTTPConnection(address.removeprefix("http://"), timeout=10)
        connection.request("GET", target)
        answer = connection.getresponse()
        body = answer.read()

    assert answer.status < 500
    assert not (answer.getheader("location") or "/").startswith("//")
    assert b"root:" not in body
    assert b"import " not in body


def test_what_a_page_may_not_show_is_not_in_its_errors(site: Site) -> None:
    number = site.add_series()
    site.add_patient(number, name="Doe^Jane", patient_id="77")
    browser = site.client("technologist")
    bodies = [browser.post(f"/series/{number}/patient").text, browser.get(f"/series/{number}/report.dcm").text]
    bodies += [browser.post("/sign-in", data={"name": "x" * 300, "password": PASSWORD}).text]

    assert all("Doe" not in one and PASSWORD not in one and str(site.database.url) not in one for one in bodies)


def test_wildcards_of_the_database_are_letters_like_others(site: Site) -> None:
    site.add_series(description="100% lung")
    site.add_series(description="a_b")
    client = site.client("administrator")

    def found(text: str) -> list[str]:
        answer = client.get(f"/api/v1/series?q={urllib.parse.quote(text)}")
        return [one["description"] for one in json.loads(answer.content)["series"]]

    assert (found("%"), found("_"), found("100%"), found("\\")) == (["100% lung"], ["a_b"], ["100% lung"], [])
