"""Every route with who may use it. A route without an entry here fails, so that none is open by accident."""

import re
from dataclasses import dataclass, field

import pytest
from support.workbench import PASSWORD, Site, routes_of

from mediqa_node.storage import sessions

ROLES = ("technologist", "reader", "physicist", "administrator")
OPEN = ("nobody", "tablet", *ROLES)
SIGNED_IN = ("tablet", *ROLES)
PEOPLE = ROLES
ANSWERING = ("tablet", "technologist", "physicist", "administrator")
READERS = ("reader", "physicist")
PHYSICS = ("physicist", "administrator")
ADMINISTRATOR = ("administrator",)
ENDLESS = {("GET", "/live")}
"""A stream does not end; `test_tablets` reads it on a socket."""


@dataclass(frozen=True)
class Rule:
    """Who may, what a form sends, and how a request of those who may ends where there is nothing of that number."""

    allowed: tuple[str, ...]
    data: dict[str, str] = field(default_factory=dict)
    ends: tuple[int, ...] = ()


RULES = {
    ("GET", "/static/{digest}/{name}"): Rule(OPEN),
    ("GET", "/api/v1/openapi.json"): Rule(OPEN),
    ("GET", "/sign-in"): Rule(OPEN),
    ("POST", "/sign-in"): Rule(OPEN, {"name": "administrator", "password": PASSWORD}),
    ("GET", "/enrol"): Rule(OPEN),
    ("POST", "/enrol"): Rule(OPEN, {"code": "$code"}),
    ("POST", "/sign-out"): Rule(OPEN),
    ("GET", "/"): Rule(SIGNED_IN),
    ("GET", "/rows"): Rule(SIGNED_IN),
    ("GET", "/live"): Rule(SIGNED_IN),
    ("POST", "/series/{number}/answer"): Rule(ANSWERING, {"kind": "kept", "initials": "AB"}),
    ("GET", "/series/{number}"): Rule(SIGNED_IN),
    ("GET", "/series/{number}/report"): Rule(SIGNED_IN),
    ("GET", "/series/{number}/report.dcm"): Rule(PHYSICS),
    ("POST", "/series/{number}/patient"): Rule(PHYSICS),
    ("GET", "/series/{number}/{revision}/thumb"): Rule(SIGNED_IN),
    ("GET", "/series/{number}/{revision}/scout"): Rule(SIGNED_IN),
    ("GET", "/series/{number}/{revision}/slices/{index}"): Rule(SIGNED_IN),
    ("GET", "/series/{number}/{revision}/maps/{index}"): Rule(SIGNED_IN),
    ("GET", "/operations"): Rule(PHYSICS),
    ("GET", "/operations/state"): Rule(PHYSICS),
    ("POST", "/operations/commands"): Rule(ADMINISTRATOR, {"action": "retry", "which": "1"}),
    ("POST", "/operations/checkpoints"): Rule(PHYSICS, {"action": "roll_back", "reason": "worse on CT1"}),
    ("GET", "/labels"): Rule(PHYSICS),
    ("GET", "/labels/exports"): Rule(PHYSICS),
    ("GET", "/labels/exports/state"): Rule(PHYSICS),
    ("POST", "/labels/exports"): Rule(("physicist",), {"what": "preview", "payload": "refs"}),
    ("GET", "/labels/exports/{name}/download"): Rule(("physicist",)),
    **{("GET", f"/trends{path}"): Rule(PHYSICS) for path in (
        "", "/answers", "/checkpoints", "/constancy", "/dose", "/scanners",
        *(f"/csv/{name}" for name in ("answers", "checkpoints", "constancy", "dose", "noise", "phantoms")),
        *(f"/data/{name}" for name in ("answers", "checkpoints", "constancy", "noise", "phantoms")),
    )},
    **{("GET", f"/trends{path}"): Rule(PHYSICS, ends=(404, 422)) for path in (
        "/answers/{month}", "/csv/scanners", "/data/scanners", "/charts/{number}", "/csv/charts/{number}",
        "/data/charts/{number}",
    )},
    ("POST", "/trends/charts/{number}/baseline"): Rule(
        ("physicist",), {"from": "2026-11-01", "to": "2026-11-30"}, ends=(404,)
    ),
    ("POST", "/trends/charts/{number}/baseline/{baseline}/withdraw"): Rule(("physicist",), ends=(409,)),
    ("POST", "/trends/events"): Rule(("physicist",), {"kind": "service", "date": "2026-11-30"}),
    ("POST", "/trends/events/{number}/withdraw"): Rule(("physicist",), ends=(409,)),
    ("GET", "/reading"): Rule(READERS),
    ("GET", "/reading/{number}"): Rule(READERS, ends=(404,)),
    ("GET", "/reading/{number}/cases/{position}/slices/{index}"): Rule(READERS, ends=(404,)),
    ("GET", "/reading/{number}/examples/{place}/slices/{index}"): Rule(READERS, ends=(404,)),
    ("GET", "/reading/{number}/examples/{place}/thumb"): Rule(READERS, ends=(404,)),
    ("POST", "/reading/{number}/start"): Rule(READERS, ends=(404,)),
    ("POST", "/reading/{number}/ratings"): Rule(READERS, {"position": "1"}, ends=(404, 422)),
    ("POST", "/reading/{number}/undo"): Rule(READERS, ends=(404,)),
    **{("GET", f"/reading/{path}"): Rule(("physicist",), ends=(404, 422)) for path in (
        "new", "matching", "{number}/agreement", "{number}/ratings.csv",
    )},
    **{("POST", f"/reading/{path}"): Rule(("physicist",), ends=(404, 422)) for path in (
        "new", "{number}/close", "{number}/import", "{number}/withdraw",
    )},
    ("GET", "/calibrations"): Rule(("physicist",)),
    ("GET", "/calibrations/new"): Rule(("physicist",), ends=(404, 422)),
    ("GET", "/calibrations/{number}"): Rule(("physicist",), ends=(404,)),
    ("POST", "/calibrations"): Rule(("physicist",), ends=(404, 422)),
    ("POST", "/calibrations/{number}/approve"): Rule(("physicist",), ends=(404,)),
    ("POST", "/calibrations/{number}/withdraw"): Rule(("physicist",), {"why": "made for another tube"}, ends=(404,)),
    ("GET", "/users"): Rule(ADMINISTRATOR),
    ("POST", "/users"): Rule(ADMINISTRATOR, {"name": "eve", "role": "administrator", "password": PASSWORD}),
    ("POST", "/users/{user_id}"): Rule(ADMINISTRATOR, {"what": "role", "value": "administrator"}),
    ("GET", "/rooms"): Rule(ADMINISTRATOR),
    ("POST", "/rooms"): Rule(ADMINISTRATOR, {"name": "CT 9", "scanner": "CT9"}),
    ("POST", "/rooms/{room_id}/revoke"): Rule(ADMINISTRATOR),
    ("GET", "/audit"): Rule(ADMINISTRATOR),
    ("GET", "/account"): Rule(SIGNED_IN),
    ("POST", "/account/password"): Rule(PEOPLE, {"old": PASSWORD, "new": "another long password"}),
    ("POST", "/account/tokens"): Rule(PEOPLE, {"label": "script"}),
    ("POST", "/account/sessions/{session_id}/end"): Rule(PEOPLE),
    ("POST", "/account/break-glass"): Rule(PEOPLE, {"reason": "no particular reason"}),
    ("GET", "/api/v1/series"): Rule(SIGNED_IN),
    ("GET", "/api/v1/series/{number}"): Rule(SIGNED_IN),
    ("GET", "/api/v1/status"): Rule(PHYSICS),
    ("GET", "/api/v1/audit"): Rule(ADMINISTRATOR),
}  # fmt: skip


def test_every_route_says_who_may_use_it(site: Site) -> None:
    assert set(routes_of(site.app)) == set(RULES)


@pytest.mark.parametrize(("route", "rule"), RULES.items(), ids=[" ".join(route) for route in RULES])
def test_only_who_may_gets_through_and_each_refusal_is_on_record(
    site: Site, route: tuple[str, str], rule: Rule
) -> None:
    site.add_user("administrator", "administrator")
    site.add_user("somebody else", "administrator")
    site.tablet_token("CT1", name="the first room")
    number = site.add_series()
    site.add_report(number)
    (site.context.exports / "one").mkdir(parents=True)
    (site.context.exports / "one" / "provenance.json").write_text("{}")
    for who in OPEN:  # the administrator, who may end the others, is the last
        if who in rule.allowed and route in ENDLESS:
            continue
        check(site, who, route, rule, number)


def check(site: Site, who: str, route: tuple[str, str], rule: Rule, number: int) -> None:
    """Send one request as one of the actors."""
    browser = site.client() if who == "nobody" else site.tablet("CT1") if who == "tablet" else site.client(who)
    with site.database.write() as connection:
        mine = connection.exec_driver_sql("SELECT max(id) FROM sessions").scalar()
        _, code = sessions.add_room(connection, "CT 1", ["CT1"], by="test", at=site.clock(), valid_s=60.0)
    data = {name: code if value == "$code" else value for name, value in rule.data.items()}
    values = {"session_id": mine, "digest": "0", "name": "one" if "exports" in route[1] else "app.css", "index": 0}
    method, path = route[0], re.sub(r"{(\w+)}", lambda found: str(values.get(found[1], number)), route[1])
    before = len(site.events(outcome="refused"))

    answer = browser.request(method, path, data=data or None)

    refusals = site.events(outcome="refused")[before:]
    led_to_the_form = answer.headers.get("location", "").startswith("/sign-in")
    if who in rule.allowed:
        assert answer.status_code < 400 or answer.status_code in rule.ends, who
        assert not led_to_the_form or path in ("/sign-out", "/account/password"), who
        assert not refusals, who
    elif who == "nobody":
        assert answer.status_code == 401 if path.startswith("/api/") else led_to_the_form
    else:
        assert answer.status_code == 403, who
        assert [(one.by, one.object) for one in refusals] == [("room" if who == "tablet" else who, path[:64])]
