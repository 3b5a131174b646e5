"""The API: as it is described, complete over its pages, with the filters of the page, and within what an actor may."""

import math
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient
from support.workbench import Site

from mediqa_node.domain.worklist import AnswerKind, Category

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A site with series of two scanners, an answer, a delivery, and numbers that JSON does not know."""
    site = Site(tmp_path_factory.mktemp("api"))
    for i in range(12):
        site.add_series(
            scanner=f"CT{1 + i % 2}",
            category=[Category.REPEAT, Category.FINE, Category.NOT_SCORED][i % 3],
            score=None if i % 3 == 2 else 0.1 * (i % 9),
            answer=AnswerKind.KEPT if i == 3 else None,
            recorded=[265.0, None, math.inf, math.nan][i % 4],
            received_at=site.clock() - 20_000 * i,
        )
    site.add_delivery(1)
    site.client("physicist").post("/series/1/answer", data={"kind": "repeated", "reason": "ünï"})
    yield site
    site.close()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_that_the_description_allows_or_forbids_is_an_error_of_the_node(
    busy: Site, mode: GenerationMode
) -> None:
    program = busy.program("administrator")
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", busy.app)
    seen = set()
    found = [one.ok() for one in schema.get_all_operations()]
    for operation in found:

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=25,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def conforms(case: schemathesis.Case) -> None:
            answer = case.call(headers={"authorization": program.headers["authorization"]})
            seen.add((case.path, answer.status_code))
            case.validate_response(answer, checks=CHECKS)

        conforms()

    assert len(found) == 4
    assert {status for _, status in seen} >= ({200, 404} if mode is GenerationMode.POSITIVE else {422})


def everything(client: TestClient, query: str = "", at_most: int = 5) -> list[int]:
    """Return the numbers of the series on all pages of a list."""
    found: list[int] = []
    before = ""
    while True:
        page = client.get(f"/api/v1/series?at_most={at_most}{before}{query}").json()
        found += [one["id"] for one in page["series"]]
        if page["next"] is None:
            return found
        before = f"&before={page['next']}"


@pytest.mark.parametrize("at_most", [1, 2, 5, 11, 12, 13, 500])
def test_pages_are_complete_without_one_twice(busy: Site, at_most: int) -> None:
    assert everything(busy.program("reader"), "&received=all", at_most) == list(range(12, 0, -1))


def test_what_arrives_meanwhile_moves_nothing_to_another_page(site: Site) -> None:
    for _ in range(4):
        site.add_series()
    client = site.program("reader")

    first = client.get("/api/v1/series?at_most=2").json()
    site.add_series()
    second = client.get(f"/api/v1/series?at_most=2&before={first['next']}").json()

    assert [one["id"] for one in first["series"] + second["series"]] == [4, 3, 2, 1]


@pytest.mark.parametrize(
    "query",
    ["", "&received=all", "&received=7d", "&scanner=CT2&received=all", "&category=repeat&received=all", "&open=1",
     "&open=1&received=all", "&q=CT1&received=all", "&modality=MR", "&category=nonsense", "&received=nonsense",
     "&protocol=Chest&q=lung"],
)  # fmt: skip
def test_filters_are_those_of_the_page(busy: Site, query: str) -> None:
    page = busy.client("reader").get(f"/rows?{query[1:]}").text

    listed = [int(part.partition('"')[0][1:]) for part in page.split('<tr id="')[1:]]

    assert listed == everything(busy.program("reader"), query)


def test_the_audit_trail_is_complete_over_its_pages(site: Site) -> None:
    reader, admin = site.client("reader"), site.program("administrator")
    for _ in range(7):
        reader.get("/users")

    found, before = [], ""
    while True:
        page = admin.get(f"/api/v1/audit?q=refused&at_most=3{before}").json()
        found += [one["id"] for one in page["events"]]
        if page["next"] is None:
            break
        before = f"&before={page['next']}"

    assert found == [one.id for one in site.events("users.refused")][::-1]


def test_one_series_has_its_facts_slices_deliveries_and_answers(busy: Site) -> None:
    found = busy.program("reader").get("/api/v1/series/1").json()

    assert found["answer"] == "repeated"
    assert [one["kind"] for one in found["answers"]] == ["repeated"]
    assert [one["destination"] for one in found["deliveries"]] == ["PACS"]
    assert len(found["slices"]) == 7


def test_the_api_names_no_patient(site: Site) -> None:
    number = site.add_series()
    site.add_patient(number, name="Doe^Jane", patient_id="PID77", accession_number="ACC4711")
    client = site.program("administrator")

    bodies = client.get("/api/v1/series").text + client.get(f"/api/v1/series/{number}").text

    assert not [one for one in ("Doe", "PID77", "ACC4711") if one in bodies]


def test_without_a_token_every_part_of_the_api_asks_for_one(site: Site) -> None:
    for path in ("/api/v1/series", "/api/v1/series/1", "/api/v1/status", "/api/v1/audit"):
        answer = site.client().get(path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_the_description_says_how_to_sign_in_and_what_may_go_wrong(site: Site) -> None:
    described = site.client().get("/api/v1/openapi.json").json()

    assert [one["scheme"] for one in described["components"]["securitySchemes"].values()] == ["bearer"]
    for path in described["paths"].values():
        for operation in path.values():
            assert {"200", "401", "403", "422", "503"} <= set(operation["responses"])
            assert operation["security"]


def test_a_token_of_a_technologist_reads_no_audit_trail(site: Site) -> None:
    answer = site.program("technologist").get("/api/v1/audit")

    assert answer.status_code == 403
    assert [one.by for one in site.events("audit.refused")] == ["technologist"]
