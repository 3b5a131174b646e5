"""Signing in and out: who gets in, how often they may try, and what the cookie gives."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from support.workbench import NOW, PASSWORD, Site, is_in, sign_in

from mediqa_node.storage import users
from mediqa_node.web.access import COOKIE, LOCK_S
from mediqa_node.web.passwords import Busy, Passwords
from mediqa_node.web.throttle import Throttle

# ── signing in ───────────────────────────────────────────────────────────────


def test_nobody_is_led_to_the_form_and_back_to_where_they_wanted_to_go(site: Site, jane: int) -> None:
    number = site.add_series()
    browser = site.client()

    first = browser.get(f"/series/{number}?scanner=CT1")
    form = browser.get(first.headers["location"])
    after = sign_in(browser, next=f"/series/{number}?scanner=CT1")

    assert first.status_code == 303
    assert f'name="next" value="/series/{number}?scanner=CT1"' in form.text
    assert after.headers["location"] == f"/series/{number}?scanner=CT1"
    assert browser.get(after.headers["location"]).status_code == 200


def test_a_wrong_password_an_unknown_name_and_a_disabled_one_get_the_same_answer(site: Site, jane: int) -> None:
    gone = site.add_user("gone", "reader")
    with site.database.write() as connection:
        users.change(connection, gone, at=NOW, disabled_at=NOW)

    answers = [
        sign_in(site.client(), name, password)
        for name, password in (("jane", "wrong password"), ("nobody", PASSWORD), ("gone", PASSWORD))
    ]

    assert {one.status_code for one in answers} == {401}
    assert (
        len({one.text.replace(name, "NAME") for one, name in zip(answers, ("jane", "nobody", "gone"), strict=True)})
        == 1
    )
    assert not any("set-cookie" in one.headers for one in answers)


def test_a_name_is_locked_after_five_failures_and_opens_by_itself(site: Site, jane: int) -> None:
    for address in range(5):
        assert sign_in(site.client(address=f"10.1.0.{address}"), password="wrong password").status_code == 401

    locked = sign_in(site.client(address="10.1.0.9"))
    site.clock.advance(LOCK_S - 1)
    still = sign_in(site.client(address="10.1.0.9"))
    site.clock.advance(2)
    opened = sign_in(site.client(address="10.1.0.9"))

    assert (locked.status_code, still.status_code, opened.status_code) == (401, 401, 303)


def test_success_forgets_the_failures_before(site: Site, jane: int) -> None:
    for round_ in range(3):
        for _ in range(4):
            assert sign_in(site.client(address=f"10.2.0.{round_}"), password="wrong password").status_code == 401
        assert sign_in(site.client(address=f"10.2.0.{round_}")).status_code == 303


def test_guesses_in_parallel_are_counted_one_by_one(tmp_path: Path) -> None:
    slow = Passwords(PasswordHasher(time_cost=2, memory_cost=4096, parallelism=1), at_once=2, waiting=40)
    site = Site(tmp_path, passwords=slow)
    site.add_user("jane", "physicist")
    start = threading.Barrier(12)

    def guess(number: int) -> int:
        browser = site.client(address=f"10.3.0.{number}")
        start.wait()
        return sign_in(browser, password="wrong password").status_code

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(guess, range(12)))
    with site.database.read() as connection:
        user = users.find(connection, "jane")
    site.close()

    assert user is not None
    assert user.n_failures == 5  # and none is counted while the name is locked
    assert user.is_locked(NOW)


def test_the_right_password_does_not_open_a_name_that_was_locked_while_it_was_checked(tmp_path: Path) -> None:
    class Locking(Passwords):
        """Locks the name while the hash is computed, as other requests do."""

        def is_right(self, kept: str | None, password: str) -> bool:
            with site.database.write() as connection:
                connection.exec_driver_sql(f"UPDATE users SET locked_until = {NOW + 60}")
            return super().is_right(kept, password)

    site = Site(tmp_path, passwords=Locking())
    site.add_user("jane", "physicist")

    answer = sign_in(site.client())
    site.close()

    assert answer.status_code == 401


def test_one_address_has_ten_attempts_a_minute_for_all_names_and_codes(site: Site, jane: int) -> None:
    browser = site.client()
    answers = [sign_in(browser, f"name{i}", "wrong password").status_code for i in range(9)]
    answers.append(browser.post("/enrol", data={"code": "ABCDE-FGHJK"}).status_code)

    refused = sign_in(browser)
    elsewhere = sign_in(site.client(address="10.0.0.99"))
    site.clock.advance(61)
    later = sign_in(browser)

    assert answers == [401] * 10
    assert (refused.status_code, elsewhere.status_code, later.status_code) == (429, 303, 303)


def test_a_host_with_many_ipv6_addresses_counts_once(site: Site, jane: int) -> None:
    answers = [
        sign_in(site.client(address=f"2001:db8:1:2::{i:x}"), "nobody", "wrong password").status_code for i in range(12)
    ]

    assert answers == [401] * 10 + [429] * 2
    assert sign_in(site.client(address="2001:db8:1:3::1")).status_code == 303


def test_a_flood_of_attempts_leaves_one_event_a_minute(site: Site) -> None:
    browser = site.client()
    for _ in range(40):
        sign_in(browser, "nobody", "wrong password")
        browser.post("/enrol", data={"code": "ABCDE-FGHJK"})

    assert len(site.events()) == 11
    assert site.events()[-1].detail == "too many attempts"


def test_a_clock_that_is_set_back_locks_nobody_out() -> None:
    throttle = Throttle(at_most=1, per_s=60.0)

    assert throttle.admits("a", NOW)
    assert throttle.admits("a", NOW - 86_400)


def test_a_password_in_the_field_for_the_name_stays_off_the_record(site: Site, jane: int) -> None:
    sign_in(site.client(), PASSWORD, "jane")

    assert all(PASSWORD not in f"{one.by} {one.object} {one.detail}" for one in site.events())


def test_sign_ins_success_and_failure_are_on_record_with_address(site: Site, jane: int) -> None:
    sign_in(site.client(), password="wrong password")
    sign_in(site.client())

    assert [(one.by, one.outcome, one.address) for one in site.events("sign-in")] == [
        ("jane", "refused", "10.0.0.7"),
        ("jane", "done", "10.0.0.7"),
    ]


def test_more_sign_ins_at_once_than_may_wait_are_turned_away() -> None:
    passwords = Passwords(PasswordHasher(time_cost=3, memory_cost=16_384, parallelism=1), at_once=1, waiting=2)
    start = threading.Barrier(6)

    def check(_: int) -> bool:
        start.wait()
        try:
            passwords.hash("a password")
        except Busy:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(check, range(6)))

    assert 2 <= sum(done) < 6
    assert passwords.is_right(passwords.hash("x"), "x")


def test_when_too_many_wait_the_answer_says_to_come_back(tmp_path: Path) -> None:
    site = Site(tmp_path, passwords=Passwords(waiting=1))
    turn = site.context.passwords._turn()
    with turn:
        answer = sign_in(site.client())
    site.close()

    assert answer.status_code == 503
    assert "try again" in answer.text


@pytest.mark.parametrize(
    "where",
    ["https://evil.test/", "//evil.test", "/\\evil.test", "\\\\evil.test", "javascript:alert(1)", "evil.test",
     "/\t/evil.test", "/\r\nset-cookie: a=b", "/\u202eevil", "", "http:/evil.test", " //evil.test"],
)  # fmt: skip
def test_the_way_back_leads_to_this_node_only(site: Site, jane: int, where: str) -> None:
    answer = sign_in(site.client(), next=where)
    form = site.client().get("/sign-in", params={"next": where})
    again = site.client("reader").get("/sign-in", params={"next": where})

    assert answer.headers.get("location", "/") == "/"
    assert 'name="next" value="/"' in form.text
    assert again.headers["location"] == "/"
    assert "a" not in dict(answer.cookies)


# ── the cookie and the session ───────────────────────────────────────────────


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(site: Site, jane: int) -> None:
    cookie = sign_in(site.client()).headers["set-cookie"].lower()

    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie
    assert "secure" not in cookie
    assert "domain" not in cookie
    assert "max-age" not in cookie  # it ends with the browser


def test_behind_tls_the_cookie_is_for_https_only_and_browsers_are_told_to_stay(tmp_path: Path) -> None:
    site = Site(tmp_path, secure=True)
    site.add_user("jane", "physicist")

    answer = sign_in(site.client())
    site.close()

    assert "; secure" in answer.headers["set-cookie"].lower()
    assert answer.headers["strict-transport-security"].startswith("max-age=")


def test_the_database_holds_a_digest_and_no_token_code_or_password(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.add_user("jane", "administrator")
    browser = site.client()
    sign_in(browser)
    token = browser.post("/account/tokens", data={"label": "script"}).text.partition('class="mono">')[2][:43]
    page = browser.post("/rooms", data={"name": "CT 1", "scanner": "CT1"}).text
    code = page.partition('class="code">')[2][:11]
    secrets = [browser.cookies[COOKIE], token, code, code.replace("-", ""), PASSWORD]
    site.close()

    dump = "\n".join(sqlite3.connect(tmp_path / "node.db").iterdump())

    assert all(len(one) >= 10 for one in secrets)
    assert not [one for one in secrets if one in dump]
    assert "argon2id" in dump


def test_signing_in_gives_a_new_token_and_ends_the_session_before(site: Site, jane: int) -> None:
    browser = site.client("reader")
    before = browser.cookies[COOKIE]

    after = sign_in(browser).cookies[COOKIE]

    assert after != before
    assert not is_in(site.browser(before))


def test_a_token_that_somebody_else_chose_is_never_taken_over(site: Site, jane: int) -> None:
    chosen = "x" * 43
    browser = site.browser(chosen)

    given = sign_in(browser).cookies[COOKIE]

    assert given != chosen
    assert not is_in(site.browser(chosen))


def test_who_is_idle_signs_in_again_and_who_works_does_not(site: Site) -> None:
    browser = site.client("physicist")
    for _ in range(4):
        site.clock.advance(1700)
        assert is_in(browser)
    site.clock.advance(1801)

    assert not is_in(browser)


def test_what_an_open_page_loads_by_itself_keeps_nobody_signed_in(site: Site) -> None:
    number = site.add_series()
    browser = site.client("physicist")
    for path in ("/rows", "/operations/state", f"/series/{number}/1/thumb", "/nowhere"):
        site.clock.advance(500)
        browser.get(path, headers={"hx-request": "true"})

    assert not is_in(browser)


def test_signing_out_ends_the_session_on_the_server(site: Site) -> None:
    browser = site.client("reader")
    token = browser.cookies[COOKIE]

    answer = browser.post("/sign-out")

    assert answer.headers["location"] == "/sign-in"
    assert COOKIE not in browser.cookies
    assert not is_in(site.browser(token))
    assert [one.by for one in site.events("sign-out")] == ["reader"]


def test_nothing_is_done_by_following_a_link(site: Site) -> None:
    browser = site.client("administrator")

    answers = {path: browser.get(path).status_code for path in (
        "/sign-out", "/account/password", "/account/tokens", "/account/break-glass", "/account/sessions/1/end",
        "/users/1", "/rooms/1/revoke", "/series/1/answer", "/series/1/patient", "/operations/commands",
    )}  # fmt: skip

    assert set(answers.values()) == {405}
    assert is_in(browser)
