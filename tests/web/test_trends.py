"""The pages of the trends over a real database: what they show, who may decide, and how fast they are."""

import csv
import io
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from support.trend_cases import NOW, Scanner, add_around, sources, write_points

from mediqa_node.domain.access import Role
from mediqa_node.pipeline.trends import TrendSweep
from mediqa_node.storage import audit_trail, sessions, trend_choices, trend_views, users
from mediqa_node.storage.database import Database
from mediqa_node.storage.migrate import upgrade
from mediqa_node.storage.trend_tables import trend_charts
from mediqa_node.web.access import COOKIE
from mediqa_node.web.app import create_app
from mediqa_node.web.context import WebContext

ZONE = ZoneInfo("Europe/Berlin")
SIGNED_IN = {"origin": "http://testserver"}
STEP = Scanner(name="STEP", score_step=lambda share: -2.5 if share > 0.95 else 0.0)
CALM = Scanner(name="CALM", n=120)
EVIL = Scanner(name="=cmd|' /C calc'!A0", protocol="+Chest", n=25)
Client = Callable[..., TestClient]


class NoPictures:
    """Trends show no picture."""

    def render(self, what: str, arguments: object) -> bytes:
        raise LookupError


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path_factory.mktemp('trends') / 'node.db'}")
    upgrade(made)
    first = 1
    for seed, scanner in enumerate((STEP, CALM, EVIL)):
        with made.write() as connection:
            write_points(connection, sources(scanner, first=first, seed=seed))
        first += scanner.n
    add_around(made)
    judged(made)
    yield made
    made.close()


def judged(database: Database) -> None:
    sweep = TrendSweep(database, time_zone=ZONE, clock=lambda: NOW)
    while sweep.run():
        pass


_clients: dict[tuple[str, Role | None], TestClient] = {}


def client_of(database: Database, role: Role | None) -> TestClient:
    """Return a browser of a person with a role, or of nobody."""
    key = (database.url, role)
    if key not in _clients:
        _clients[key] = _new_client(database, role)
    return _clients[key]


def _new_client(database: Database, role: Role | None) -> TestClient:
    context = WebContext(
        database=database, pictures=NoPictures(), title="MEDIQA", software_version="0.3", data_dir=Path(),
        exports=Path(), time_zone=ZONE, clock=lambda: NOW, idle_s=1e9,
    )  # fmt: skip
    client = TestClient(create_app(context), follow_redirects=False)
    if role is not None:
        with database.write() as connection:
            users.add(connection, role, role, "-", by="test", at=NOW)
            user = users.find(connection, role)
            assert user is not None
            client.cookies.set(COOKIE, sessions.open_session(connection, at=NOW, address="", user_id=user.id))
    return client


@pytest.fixture(scope="module")
def physicist(database: Database) -> TestClient:
    return client_of(database, Role.PHYSICIST)


def number_of(database: Database, scanner: str = "STEP", quantity: str = "score") -> int:
    with database.read() as connection:
        [found] = trend_views.charts(connection, at_most=9, scanner=scanner, quantity=quantity)
    return found.id


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


PAGES = (
    "/trends", "/trends?show=all", "/trends/charts/1", "/trends/scanners", "/trends/dose", "/trends/answers",
    "/trends/answers/2026-11", "/trends/checkpoints", "/trends/constancy",
)  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_served_without_a_uid_and_under_the_strict_policy(physicist: TestClient, path: str) -> None:
    answer = physicist.get(path)

    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "style=" not in answer.text
    assert "<script>" not in answer.text
    assert not re.search(r"\b1\.[12]\.\d", answer.text)  # as UIDs of the support begin


@pytest.mark.parametrize("path", [*PAGES, "/trends/data/charts/1", "/trends/csv/charts/1"])
def test_trends_are_for_physicists_and_administrators(database: Database, path: str) -> None:
    assert client_of(database, None).get(path).status_code == 303
    assert client_of(database, Role.TECHNOLOGIST).get(path).status_code == 403
    assert client_of(database, Role.READER).get(path).status_code == 403
    assert client_of(database, Role.ADMINISTRATOR).get(path).status_code == 200


def test_the_first_page_lists_the_chart_with_the_planted_step_first_and_the_expected_false_alarms(
    physicist: TestClient,
) -> None:
    text = physicist.get("/trends?measure=score").text

    first = text[text.index("<tr data-row>") :]
    assert first.index("STEP · Abdomen routine") < first.index("σ</b>")
    assert "CALM · Abdomen routine" not in text
    assert "EWMA beyond its limit" in first
    assert "false alarm" in text


def test_the_filters_are_in_the_address(physicist: TestClient) -> None:
    text = physicist.get("/trends?show=all&scanner=CALM&measure=ct.noise.soft").text

    assert text.count("<tr data-row>") == 1
    assert '<option value="CALM" selected>' in text


def test_a_chart_has_its_points_limits_marks_and_phases(physicist: TestClient, database: Database) -> None:
    data = physicist.get(f"/trends/data/charts/{number_of(database)}").json()

    assert data["n"] == len(data["t"]) == len(data["y"]) == 300
    assert data["unit"].startswith("σ")  # four sizes, each from its own mean
    assert {"1", "E"} <= {mark["rule"] for mark in data["marks"] if mark["alarms"]}
    assert data["limits"][-1]["high"] == 3
    assert data["limits"][-1]["provisional"] is True
    assert [phase["label"] for phase in data["phases"]] == ["software"]


def test_one_size_is_in_the_unit_of_its_quantity(physicist: TestClient, database: Database) -> None:
    number = number_of(database)
    page = physicist.get(f"/trends/charts/{number}").text
    stratum = page.split(f"/trends/charts/{number}?stratum=")[1].split('"')[0]

    data = physicist.get(f"/trends/data/charts/{number}?stratum={stratum}").json()

    assert data["unit"] == "of 100"
    assert 60 < data["limits"][-1]["centre"] < 90
    assert data["limits"][-1]["low"] < data["limits"][-1]["centre"] < data["limits"][-1]["high"]


def test_a_baseline_is_chosen_by_a_physicist_audited_and_used_at_once(
    physicist: TestClient, database: Database
) -> None:
    number = number_of(database, "CALM")
    form = {"from": "2026-08-01", "to": "2026-10-31", "reason": "acceptance"}

    answer = physicist.post(f"/trends/charts/{number}/baseline", data=form, headers=SIGNED_IN)

    assert answer.status_code == 303
    assert "baseline chosen" in physicist.get(f"/trends/charts/{number}").text
    with database.read() as connection:
        [row] = trend_choices.baselines_of(connection, number)
        [event] = audit_trail.search(connection, text="baseline.chosen")
    assert (row.made_by, row.reason) == ("physicist", "acceptance")
    assert (event.by, event.object) == ("physicist", str(number))

    physicist.post(f"/trends/charts/{number}/baseline/{row.id}/withdraw", headers=SIGNED_IN)
    assert "provisional limits" in physicist.get(f"/trends/charts/{number}").text
    again = physicist.post(f"/trends/charts/{number}/baseline/{row.id}/withdraw", headers=SIGNED_IN)
    assert again.status_code == 409


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        ("2026-11-28", "2026-11-29", "No stratum has 20 points"),
        ("2026-11-28", "2026-11-01", "ends before it begins"),
        ("yesterday", "2026-11-01", "A day is written as"),
    ],
)
def test_a_period_that_cannot_be_a_baseline_is_refused_with_the_reason(
    physicist: TestClient, database: Database, start: str, end: str, words: str
) -> None:
    form = {"from": start, "to": end}

    answer = physicist.post(f"/trends/charts/{number_of(database)}/baseline", data=form, headers=SIGNED_IN)

    assert answer.status_code == 422
    assert words in answer.text


def test_an_administrator_looks_and_does_not_decide(database: Database) -> None:
    client = client_of(database, Role.ADMINISTRATOR)
    number = number_of(database)

    assert "A physicist chooses baselines" in client.get(f"/trends/charts/{number}").text
    for path, form in (
        (f"/trends/charts/{number}/baseline", {"from": "2026-08-01", "to": "2026-10-01"}),
        ("/trends/events", {"kind": "service", "date": "2026-10-01"}),
    ):
        assert client.post(path, data=form, headers=SIGNED_IN).status_code == 403


def test_a_decision_from_another_site_is_refused(physicist: TestClient) -> None:
    form = {"kind": "service", "date": "2026-10-01"}

    assert physicist.post("/trends/events", data=form, headers={"origin": "https://evil.example"}).status_code == 403


def test_an_event_begins_a_phase_and_no_baseline_may_cross_it(physicist: TestClient, database: Database) -> None:
    number = number_of(database)
    form = {
        "kind": "service", "date": "2026-11-24", "time": "14:30", "scanner": "STEP", "note": "tube replaced",
        "starts_phase": "1", "back": str(number),
    }  # fmt: skip

    assert physicist.post("/trends/events", data=form, headers=SIGNED_IN).headers["location"].endswith(f"/{number}")

    data = physicist.get(f"/trends/data/charts/{number}").json()
    [phase] = [phase for phase in data["phases"] if phase["label"] == "service"]
    assert (phase["note"], phase["starts"]) == ("tube replaced", True)
    crossing = {"from": "2026-08-01", "to": "2026-11-29"}
    refused = physicist.post(f"/trends/charts/{number}/baseline", data=crossing, headers=SIGNED_IN)
    assert refused.status_code == 422
    assert "An event lies within this period" in refused.text
    with database.read() as connection:
        [event] = [one for one in trend_choices.events_of(connection, "STEP") if one.id]
    assert physicist.post(f"/trends/events/{event.id}/withdraw", data={"back": number}, headers=SIGNED_IN).is_redirect


@pytest.mark.parametrize("form", [{"kind": "flood", "date": "2026-10-01"}, {"kind": "other", "date": "soon"}])
def test_an_event_that_is_not_understood_is_refused(physicist: TestClient, form: dict[str, str]) -> None:
    assert physicist.post("/trends/events", data=form, headers=SIGNED_IN).status_code == 422


def test_the_csv_of_a_chart_has_all_points_with_what_was_found(physicist: TestClient, database: Database) -> None:
    rows = table(physicist.get(f"/trends/csv/charts/{number_of(database)}").text)

    assert len(rows) == 300
    assert any("EWMA" in row["rules"] for row in rows)
    assert {row["unit"] for row in rows} == {"of 100"}
    assert 50 < float(rows[0]["value"]) < 100


def test_no_cell_of_a_csv_begins_like_a_formula(physicist: TestClient) -> None:
    rows = table(physicist.get("/trends/csv/scanners", params={"measure": "score", "protocol": "+Chest"}).text)
    doses = table(physicist.get("/trends/csv/dose").text)
    answers = table(physicist.get("/trends/csv/answers").text)

    assert {row["scanner"] for row in rows} == {f"'{EVIL.name}"}
    for row in (*rows, *doses, *answers):
        assert not any(value.startswith(("=", "+", "@", "\t")) for value in row.values())


def test_a_median_dose_of_fewer_than_twenty_exams_is_not_shown(physicist: TestClient) -> None:
    rows = {
        (row["protocol"], row["size_class"]): row
        for row in table(physicist.get("/trends/csv/dose?from=2026-01-01").text)
    }

    common, rare = rows["Abdomen routine", "Dw 240-280 mm"], rows["'+Chest", "Dw 200-240 mm"]
    assert int(common["exams"]) >= 20
    assert float(common["ctdi_vol_mgy"]) > 0
    assert common["phantom_cm"] == "32.0"
    assert int(rare["exams"]) < 20
    assert (rare["ctdi_vol_mgy"], rare["ssde_mgy"], rare["dlp_mgy_cm"]) == ("", "", "")


def test_the_sheet_of_a_month_counts_what_people_answered(physicist: TestClient, database: Database) -> None:
    from mediqa_node.storage import answers

    with database.read() as connection:
        given = answers.given(connection, since=NOW - 30 * 86_400, until=NOW)
    november = [one for one in given if one.at >= 1793487600.0]  # 2026-11-01 in Berlin
    repeated = sum(one.kind == "repeated" for one in november)

    text = physicist.get("/trends/answers/2026-11").text
    rows = table(physicist.get("/trends/csv/answers?month=2026-11").text)

    assert sum(int(row["repeated"]) for row in rows) == repeated > 0
    assert f'<td class="num">{repeated}</td>' in text
    assert physicist.get("/trends/answers/November").status_code == 422


def test_odd_queries_and_forms_are_no_error_of_the_node(physicist: TestClient) -> None:
    for path, status in (
        ("/trends/charts/1?stratum=²", 200),
        ("/trends/charts/1?stratum=999999999", 200),
        ("/trends/answers/9999-12", 422),
        ("/trends/csv/answers?month=9999-12", 422),
    ):
        assert physicist.get(path).status_code == status, path
    form = {"kind": "service", "date": "2026-11-01"}
    for odd in ({"back": str(2**63)}, {"note": "a\0b"}, {"scanner": "a\u202eb"}):
        answer = physicist.post("/trends/events", data=form | odd, headers=SIGNED_IN)
        assert answer.status_code == 422, odd


def test_a_month_without_its_zero_is_the_same_month(physicist: TestClient) -> None:
    short, usual = (physicist.get(f"/trends/answers/{name}").text for name in ("2026-9", "2026-09"))

    assert short == usual


@pytest.mark.parametrize(
    "path",
    [
        "/trends/data/scanners?protocol=Abdomen+routine&measure=score",
        "/trends/data/noise?protocol=Abdomen+routine",
        "/trends/data/answers",
        "/trends/data/checkpoints",
        "/trends/data/constancy",
        "/trends/data/phantoms?station=CT_1&rule=water+daily",
    ],
)
def test_every_figure_has_numbers(physicist: TestClient, path: str) -> None:
    data = physicist.get(path).json()

    assert data["kind"] in ("scanners", "scatter", "lines")
    assert data.get("groups") or data["t"]


@pytest.mark.parametrize("path", ["/trends/charts/99999", "/trends/data/charts/99999", "/trends/csv/charts/99999"])
def test_a_chart_that_is_not_there_is_said_to_be_missing(physicist: TestClient, path: str) -> None:
    assert physicist.get(path).status_code == 404


@pytest.mark.parametrize("path", PAGES[:2] + PAGES[3:])
def test_a_node_without_series_says_what_to_do(tmp_path: Path, path: str) -> None:
    empty = Database(f"sqlite:///{tmp_path / 'node.db'}")
    upgrade(empty)

    answer = client_of(empty, Role.PHYSICIST).get(path)

    assert answer.status_code == 200
    empty.close()


def test_a_year_of_one_scanner_is_served_within_a_second_as_an_envelope_that_hides_no_alarm(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'node.db'}")
    upgrade(database)
    year = Scanner(n=10_000, days=364.9, score_step=lambda share: -3.0 if share > 0.999 else 0.0)
    with database.write() as connection:
        write_points(connection, sources(year))
        others = sa.update(trend_charts).where(trend_charts.c.quantity != "score")
        connection.execute(others.values(judged_changes=trend_charts.c.changes))  # judged elsewhere: the test is short
    judged(database)
    client = client_of(database, Role.PHYSICIST)
    number = number_of(database, "CT_1")
    client.get("/trends")  # templates are compiled once

    before = time.perf_counter()
    page, data = client.get(f"/trends/charts/{number}"), client.get(f"/trends/data/charts/{number}").json()
    took_s = time.perf_counter() - before

    assert page.status_code == 200
    assert data["envelope"] is True
    assert data["n"] == 10_000
    assert len(data["t"]) <= 600
    assert any(mark["alarms"] and mark["t"] > NOW - 5 * 86_400 for mark in data["marks"])
    assert took_s < 1.0
    database.close()
