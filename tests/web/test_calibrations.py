"""From a study's ratings to a verdict: made, approved by a second person, in the next assessment, and withdrawn."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from starlette.testclient import TestClient
from support.command import invoke_in
from support.factories import calibration
from support.reading_room import Site

from mediqa_node import config
from mediqa_node.composition import checkpoints, resources
from mediqa_node.domain.access import Role
from mediqa_node.storage import assessments, audit_trail, calibrations, reading, users, worklist
from mediqa_node.storage.database import Database
from mediqa_node.storage.reading_results import scored

STUDY = {
    "name": "Autumn",
    "points": "1 not usable\n2 poor\n3 acceptable\n4 good\n5 excellent",
    "direction": "higher_better",
    "criteria": ["overall"],
    "received": "all",
    "at_most": 60,
    "repeats": 0,
    "spread": "true",
    "seed": 7,
}
ASKED = {"study": 1, "scanner": "CT_ROOM_1", "protocol": "*", "modality": "CT", "look": 3.5, "repeat": 2.5}


def read_by(site: Site, browser: TestClient, name: str, *, lower_better: bool = False) -> None:
    """Rate every case by its rank among the scores, as a reader who sees what the network sees."""
    browser.post("/reading/1/start")
    with site.bench.database.read() as connection:
        me = reading.reader(connection, 1, name)
        assert me is not None
        places = reading.places(connection, me.id)
        ranks = sorted(scored(connection, reading.cases(connection, 1)), key=lambda one: one.score)
    rank = {one.series_instance_uid: i for i, one in enumerate(ranks)}
    for place in places:
        value = 1 + min(4, 5 * rank[place.series_instance_uid] // len(rank))
        given = {"position": place.position, "overall": 6 - value if lower_better else value}
        assert browser.post("/reading/1/ratings", data=given).status_code == 303


def site_with(folder: Path, n: int) -> tuple[Site, TestClient, TestClient]:
    site = Site(folder)
    site.phantoms(n)
    curie = site.person("curie", Role.PHYSICIST)
    assert curie.post("/reading/new", data=STUDY).status_code == 303
    ada = site.person("ada", Role.READER)
    read_by(site, ada, "ada")
    return site, curie, ada


@pytest.fixture(scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, TestClient, TestClient]]:
    made = site_with(tmp_path_factory.mktemp("site"), 24)
    yield made
    made[0].close()


@pytest.fixture
def site(_site: tuple[Site, TestClient, TestClient]) -> Site:
    """A site with 24 series, rated by one reader, and no calibration."""
    from mediqa_node.storage.reading_tables import calibrations as table

    with _site[0].bench.database.write() as connection:
        connection.execute(table.delete())
        if (second := users.find(connection, "roentgen")) is not None:
            users.change(connection, second.id, at=_site[0].bench.now, disabled_at=_site[0].bench.now)
    return _site[0]


@pytest.fixture
def curie(_site: tuple[Site, TestClient, TestClient]) -> TestClient:
    return _site[1]


def test_without_a_calibration_the_page_says_what_to_do(site: Site, curie: TestClient):
    page = curie.get("/calibrations").text

    assert "No calibration is active" in page
    assert "/calibrations/new?study=1" in page
    assert "reports that were written do not change" in page


def test_limits_become_thresholds_with_their_figures_and_a_plot(site: Site, curie: TestClient):
    page = curie.get("/calibrations/new", params=ASKED).text

    assert page.count('class="point is-') == 24
    assert "24 series, 1 readers" in page
    assert "Oron and Flournoy 2017" in page
    assert "held out" in page
    assert "95 % interval" in page
    [look, repeat] = re.findall(r"<td>below [\d.]+</td><td><b>([\d.]+)</b>", page)
    assert float(repeat) < float(look)


def test_only_who_may_calibrate_sees_or_makes_one(site: Site, _site: tuple[Site, TestClient, TestClient]):
    ada = _site[2]

    assert [ada.get("/calibrations").status_code, ada.post("/calibrations", data=ASKED).status_code] == [403, 403]


def test_a_calibration_turns_scores_into_verdicts_once_somebody_else_has_approved_it(site: Site, curie: TestClient):
    roentgen = site.person("roentgen", Role.PHYSICIST)
    assert curie.post("/calibrations", data=ASKED).status_code == 303
    with site.bench.database.read() as connection:
        [made] = calibrations.every(connection)
        before = worklist.find(connection, 1)
    number = made.number

    [early] = site.phantoms(1, first=300)
    assert curie.post(f"/calibrations/{number}/approve").status_code == 403
    assert "roentgen" in curie.get(f"/calibrations/{number}").text
    assert roentgen.post(f"/calibrations/{number}/approve").status_code == 303
    [low] = site.phantoms(1, first=301)  # a single phantom scores lowest
    [elsewhere] = site.phantoms(1, first=302, station="CT_ROOM_9")

    def verdict(uid: str) -> str:
        with site.bench.database.read() as connection:
            return assessments.scored(connection, [uid])[uid].verdict

    assert (verdict(early), verdict(low), verdict(elsewhere)) == ("uncalibrated", "review", "uncalibrated")
    with site.bench.database.read() as connection:
        entry, after = worklist.find_by_uid(connection, low), worklist.find(connection, 1)
        [kept] = calibrations.active(connection)
        found = assessments.load_assessment(connection, low, 1)
    assert entry is not None
    assert entry.category == "repeat"
    assert entry.thresholds == (kept.review_below, kept.borderline_below)
    assert before == after, "what was assessed before stays"
    assert found is not None
    assert found.calibration == kept
    assert (kept.approved_by, kept.n_series, kept.n_readers) == ("roentgen", 24, 1)

    assert roentgen.post(f"/calibrations/{number}/withdraw", data={"why": "new detector"}).status_code == 303
    [late] = site.phantoms(1, first=303)
    assert verdict(late) == "uncalibrated"
    with site.bench.database.read() as connection:
        actions = [event.action for event in audit_trail.search(connection, text="calibration.")][::-1]
    assert [action for action in actions if action != "calibrate.refused"][-3:] == [
        "calibration.made", "calibration.approved", "calibration.withdrawn",
    ]  # fmt: skip


def test_who_is_alone_may_approve_what_they_made_and_is_told_so(site: Site, curie: TestClient):
    curie.post("/calibrations", data=ASKED)
    with site.bench.database.read() as connection:
        [made] = calibrations.every(connection)

    assert "nobody else may approve one here" in curie.get(f"/calibrations/{made.number}").text
    assert curie.post(f"/calibrations/{made.number}/approve").status_code == 303
    assert curie.post(f"/calibrations/{made.number}/approve").status_code == 409


def test_a_newer_calibration_of_the_same_scope_replaces_the_older_one(site: Site, curie: TestClient):
    for limits in ({"look": 3.5}, {"look": 4.0}):
        curie.post("/calibrations", data=ASKED | limits)
        with site.bench.database.read() as connection:
            newest = calibrations.every(connection)[0]
        curie.post(f"/calibrations/{newest.number}/approve")

    with site.bench.database.read() as connection:
        first, second = calibrations.every(connection)[::-1]
        active = calibrations.active(connection)
    assert [one.id for one in active] == [second.calibration.id]
    assert first.withdrawn_why == f"replaced by {second.calibration.id}"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"look": 2.5}, "has to be worse"),
        ({"repeat": 1.0}, "no score stands for a mean rating of 1"),
        ({"scanner": "CT_ROOM_7"}, "no series of this scanner"),
        ({"look": 8}, "not on the scale"),
    ],
)
def test_what_gives_no_thresholds_says_why_and_is_not_made(site: Site, curie: TestClient, changes, words):
    shown, refused = (
        curie.get("/calibrations/new", params=ASKED | changes),
        curie.post("/calibrations", data=ASKED | changes),
    )

    assert words.lower() in shown.text.lower()
    assert "Make this calibration" not in shown.text
    assert refused.status_code == 422
    with site.bench.database.read() as connection:
        assert calibrations.every(connection) == []


def test_fewer_than_twenty_rated_series_are_refused_with_the_number(tmp_path: Path):
    site, curie, _ = site_with(tmp_path, 19)

    page = curie.get("/calibrations/new", params=ASKED)
    refused = curie.post("/calibrations", data=ASKED)
    site.close()

    assert "19 series are rated and scored here; a calibration needs 20 or more" in page.text
    assert refused.status_code == 422


def test_a_scale_on_which_lower_is_better_gives_the_same_thresholds(site: Site, curie: TestClient, tmp_path: Path):
    other = Site(tmp_path)
    other.phantoms(24)
    meitner = other.person("meitner", Role.PHYSICIST)
    meitner.post("/reading/new", data=STUDY | {"direction": "lower_better"})
    read_by(other, other.person("ada", Role.READER), "ada", lower_better=True)

    page = meitner.get("/calibrations/new", params=ASKED | {"look": 2.5, "repeat": 3.5}).text
    other.close()

    thresholds = re.compile(r"<td>(?:below|above) [\d.]+</td><td><b>([\d.]+)</b>")
    assert "above 2.5" in page
    assert thresholds.findall(page) == thresholds.findall(curie.get("/calibrations/new", params=ASKED).text)


# ── the configuration ────────────────────────────────────────────────────────


def configured(folder: Path, **changes: object) -> config.Settings:
    record = {name: getattr(calibration(**changes), name) for name in calibration().__dataclass_fields__}
    tree = {"node": {"data_dir": "var"}, "calibrations": [record], "retention": {"low_water_bytes": 0}}
    (folder / "node.yaml").write_text(yaml.safe_dump(tree))
    return config.load(folder / "node.yaml", {})


def test_a_calibration_of_the_configuration_is_imported_once_and_not_looked_at_again(tmp_path: Path):
    settings = configured(tmp_path)
    assert checkpoints.approved_calibrations(settings) == settings.calibrations, "without a database it counts"

    resources.prepare(settings)
    changed = configured(tmp_path, review_below=0.1)
    resources.prepare(changed)

    assert checkpoints.approved_calibrations(changed) == settings.calibrations
    database = Database(changed.database_url)
    with database.write() as connection:
        [one] = calibrations.every(connection)
        assert (one.source, one.is_active, one.calibration.approved_by) == ("configuration", True, "physicist")
        calibrations.withdraw(connection, one.number, by="curie", at=1.0, why="old")
    database.close()
    resources.prepare(changed)
    assert checkpoints.approved_calibrations(changed) == ()


def test_the_command_lists_calibrations(tmp_path: Path):
    resources.prepare(configured(tmp_path))

    listed, as_json = (invoke_in(tmp_path, "calibrations", "list", *more) for more in ((), ("--json",)))

    assert listed.returncode == 0, listed.stderr
    assert "CAL-7" in listed.stdout
    assert "approved 2026-10-01 by physicist" in listed.stdout
    [one] = json.loads(as_json.stdout)
    assert (one["id"], one["is_active"], one["review_below"]) == ("CAL-7", True, 0.4)


def test_without_calibrations_the_command_says_where_they_are_made(tmp_path: Path):
    (tmp_path / "node.yaml").write_text(yaml.safe_dump({"node": {"data_dir": "var"}}))
    resources.prepare(config.load(tmp_path / "node.yaml", {}))

    assert "→ make one on the page Calibrations" in invoke_in(tmp_path, "calibrations", "list").stdout
