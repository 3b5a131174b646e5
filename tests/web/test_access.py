"""People, sessions, access tokens and breaking the glass: for whom, for how long, and what is on record."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from starlette.testclient import TestClient
from support.workbench import CHEAP, PASSWORD, Site, is_in, sign_in

from mediqa_node.domain.access import user_name
from mediqa_node.storage import users
from mediqa_node.web.passwords import Passwords

# ── password, sessions, people ───────────────────────────────────────────────


def test_a_new_password_ends_every_session_and_token(site: Site) -> None:
    browser, other, program = site.client("physicist"), site.client("physicist"), site.program("physicist")

    browser.post("/account/password", data={"old": PASSWORD, "new": "another long password"})

    assert not any(is_in(one) for one in (browser, other))
    assert program.get("/api/v1/series").status_code == 401
    assert sign_in(site.client(), "physicist").status_code == 401
    assert sign_in(site.client(), "physicist", "another long password").status_code == 303


def test_a_found_session_cannot_guess_the_password(site: Site) -> None:
    browser = site.client("physicist")
    answers = [
        browser.post("/account/password", data={"old": f"guess number {i}", "new": "another long password"}).status_code
        for i in range(12)
    ]

    assert answers == [403] * 10 + [429] * 2
    assert {one.outcome for one in site.events("password.changed")} == {"refused"}


def test_short_passwords_are_refused_everywhere(site: Site) -> None:
    admin = site.client("administrator")

    assert admin.post("/account/password", data={"old": PASSWORD, "new": "short"}).status_code == 422
    assert admin.post("/users", data={"name": "x", "role": "reader", "password": "short"}).status_code == 422
    assert admin.post("/users/1", data={"what": "password", "value": "short"}).status_code == 422


def test_a_person_ends_only_their_own_sessions(site: Site) -> None:
    reader, physicist = site.client("reader"), site.client("physicist")

    answers = [reader.post(f"/account/sessions/{i}/end").status_code for i in (2, 99)]

    assert answers == [404, 404]
    assert is_in(physicist)
    assert reader.post("/account/sessions/1/end").status_code == 303
    assert not is_in(reader)


@pytest.mark.parametrize("change", [{"what": "role", "value": "reader"}, {"what": "disable"},
                                    {"what": "password", "value": "another long password"}])  # fmt: skip
def test_a_change_of_a_person_ends_their_sessions_at_once(site: Site, change: dict[str, str]) -> None:
    user_id = site.add_user("jane", "physicist")
    browser, program, admin = (
        site.client("physicist", "jane"),
        site.program("physicist", "jane"),
        site.client("administrator"),
    )

    assert admin.post(f"/users/{user_id}", data=change).status_code == 303

    assert not is_in(browser)
    assert program.get("/api/v1/series").status_code == 401
    assert [(one.by, one.object) for one in site.events(f"user.{change['what']}")] == [("administrator", "jane")]


@pytest.mark.parametrize("change", [{"what": "disable"}, {"what": "role", "value": "physicist"}])
def test_the_last_administrator_stays(site: Site, change: dict[str, str]) -> None:
    admin = site.client("administrator")

    assert admin.post("/users/1", data=change).status_code == 409
    assert is_in(admin)


def test_two_administrators_who_disable_each_other_at_once_leave_one(site: Site) -> None:
    numbers = [site.add_user(name, "administrator") for name in ("ann", "bob")]
    browsers = [site.client("administrator", name) for name in ("ann", "bob")]
    start = threading.Barrier(2)

    def disable(i: int) -> int:
        start.wait()
        return browsers[i].post(f"/users/{numbers[1 - i]}", data={"what": "disable"}).status_code

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(disable, range(2)))
    with site.database.read() as connection:
        left = [one for one in users.every(connection) if one.disabled_at is None]

    assert left


@pytest.mark.parametrize(
    "name",
    ["ADMINISTRATOR", "аdministrator", "ａｄｍｉｎｉｓｔｒａｔｏｒ", "admin\u202eistrator", "administrator\u200b",
     " administrator ", "", " ", "x" * 65, "a\nb", "a\0b"],
)  # fmt: skip
def test_no_name_can_be_taken_for_another(site: Site, name: str) -> None:
    admin = site.client("administrator")

    answer = admin.post("/users", data={"name": name, "role": "reader", "password": PASSWORD})

    assert answer.status_code in (409, 422)


def test_names_of_one_script_are_fine() -> None:
    assert [user_name(one) for one in ("müller", "山田 ハナコ", "анна", "j.doe-2")] == [
        "müller",
        "山田 ハナコ",
        "анна",
        "j.doe-2",
    ]


# ── breaking the glass ───────────────────────────────────────────────────────


def test_identifiers_are_for_roles_that_may_see_them_and_each_look_is_on_record(site: Site) -> None:
    number = site.add_series()
    site.add_patient(number, name="Doe^Jane", patient_id="77", accession_number="ACC4711")

    seen = site.client("physicist").post(f"/series/{number}/patient")
    refused = site.client("technologist").post(f"/series/{number}/patient")

    assert "Doe Jane" in seen.text
    assert refused.status_code == 403
    assert "Doe" not in refused.text
    assert [(one.by, one.object) for one in site.events("patient.shown")] == [("physicist", str(number))]
    assert [(one.by, one.outcome) for one in site.events("identifiers.refused")] == [("technologist", "refused")]
    assert all("Doe" not in f"{one}" and "4711" not in f"{one}" for one in site.events())


def test_breaking_the_glass_takes_a_reason_and_lasts_for_this_session(site: Site) -> None:
    number = site.add_series()
    site.add_patient(number, name="Doe^Jane")
    browser, other = site.client("technologist"), site.client("technologist")

    short = browser.post("/account/break-glass", data={"reason": "because"})
    answer = browser.post(
        "/account/break-glass", data={"reason": "wrong patient on the table", "next": f"/series/{number}"}
    )

    assert short.status_code == 422
    assert answer.headers["location"] == f"/series/{number}"
    assert "Doe Jane" in browser.post(f"/series/{number}/patient").text
    assert other.post(f"/series/{number}/patient").status_code == 403
    assert [(one.by, one.detail) for one in site.events("glass.broken")] == [
        ("technologist", "wrong patient on the table")
    ]


def test_no_action_is_done_that_cannot_be_put_on_record(site: Site) -> None:
    site.add_series()
    admin, reader = site.client("administrator"), site.client("reader")
    with site.database.write() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full_disk BEFORE INSERT ON audit_events BEGIN SELECT RAISE(FAIL, 'disk full'); END"
        )

    def before_and_after(browser: TestClient, path: str, **data: str) -> tuple[str, str]:
        tables = ("users", "rooms", "sessions", "answers", "commands")
        counted = "SELECT " + ", ".join(f"(SELECT group_concat(quote(t.id)) FROM {table} t)" for table in tables)
        counted += ", (SELECT count(*) FROM sessions WHERE broke_glass_at IS NOT NULL OR ended_at IS NOT NULL)"
        states = []
        for _ in range(2):
            with site.database.read() as connection:
                states.append(str(connection.exec_driver_sql(counted).one()))
            if len(states) == 1:
                assert browser.post(path, data=data).status_code >= 500
        return states[0], states[1]

    for path, data in (
        ("/users", {"name": "eve", "role": "administrator", "password": PASSWORD}),
        ("/users/2", {"what": "disable"}),
        ("/rooms", {"name": "CT 1", "scanner": "CT1"}),
        ("/account/tokens", {"label": "x"}),
        ("/account/break-glass", {"reason": "no particular reason"}),
        ("/account/password", {"old": PASSWORD, "new": "another long password"}),
        ("/series/1/answer", {"kind": "kept"}),
        ("/operations/commands", {"action": "retry", "which": "1"}),
        ("/sign-out", {}),
    ):
        before, after = before_and_after(admin, path, **data)
        assert before == after, path
    assert reader.get("/users").status_code >= 500


# ── access tokens ────────────────────────────────────────────────────────────


def test_an_access_token_works_as_bearer_on_the_api_and_nowhere_else(site: Site) -> None:
    site.add_series()
    program = site.program("administrator")
    token = program.headers["authorization"].removeprefix("Bearer ")

    assert program.get("/api/v1/series").status_code == 200
    assert program.get("/").status_code == 303
    for path, data in (
        ("/account/break-glass", {"reason": "no particular reason"}),
        ("/account/tokens", {"label": "x"}),
        ("/users", {"name": "eve", "role": "administrator", "password": PASSWORD}),
    ):
        assert program.post(path, data=data).headers.get("location", "").startswith("/sign-in"), path
    assert site.browser(token).get("/api/v1/series").status_code == 401
    assert not is_in(site.browser(token))


def test_a_browser_session_is_no_bearer(site: Site) -> None:
    token = site.token("administrator")
    program = TestClient(site.app, "http://node.test", headers={"authorization": f"Bearer {token}"})

    assert program.get("/api/v1/series").status_code == 401


def test_a_token_made_on_the_page_works_until_it_is_ended(site: Site) -> None:
    browser = site.client("physicist")
    page = browser.post("/account/tokens", data={"label": "nightly export"})
    token = page.text.partition('class="mono">')[2].partition("<")[0]
    program = TestClient(site.app, "http://node.test", headers={"authorization": f"Bearer {token}"})

    works = program.get("/api/v1/series").status_code
    shown_again = token in browser.get("/account").text
    browser.post("/account/sessions/2/end")

    assert (works, shown_again) == (200, False)
    assert program.get("/api/v1/series").status_code == 401
    assert [(one.object, one.by) for one in site.events("token.made")] == [("nightly export", "physicist")]


def test_nobody_forges_an_address_unless_a_proxy_is_configured(site: Site, jane: int) -> None:
    forged = {"x-forwarded-for": "203.0.113.5", "x-forwarded-proto": "https"}
    with site.served() as address:
        direct = httpx.post(f"{address}/sign-in", data={"name": "jane", "password": "x" * 10}, headers=forged)
    with site.served(proxies=("127.0.0.1",)) as address:
        proxied = httpx.post(f"{address}/sign-in", data={"name": "jane", "password": "x" * 10}, headers=forged)

    assert (direct.status_code, proxied.status_code) == (401, 401)
    assert [one.address for one in site.events("sign-in")] == ["127.0.0.1", "203.0.113.5"]


def test_cheap_hashes_are_for_tests_only() -> None:
    assert Passwords().is_outdated(CHEAP.hash("x"))
    assert Passwords().hash("x").startswith("$argon2id$v=19$m=65536,t=3,p=4$")
