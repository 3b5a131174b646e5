"""Answers to verdicts: who, what and when, undone and given again, and what is no answer."""

from pathlib import Path

import pytest
from support.workbench import Site

from mediqa_node.domain.worklist import AnswerKind, Category
from mediqa_node.storage import answers


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site of one technologist."""
    return Site(tmp_path)


def test_an_answer_keeps_what_the_person_saw_and_a_second_one_takes_its_place(site: Site) -> None:
    number = site.add_series(score=0.34, category=Category.REPEAT, why="5 of 7 slices below 40", scanner="CT1")
    browser = site.client("technologist")

    for kind in ("kept", "repeated"):
        assert browser.post(f"/series/{number}/answer", data={"kind": kind, "reason": "motion"}).status_code == 200

    with site.database.read() as connection:
        first, last = answers.of_series(connection, site.uid_of(number))
        standing = answers.current(connection, site.uid_of(number))
    assert (first.kind, first.undone_by) == (AnswerKind.KEPT, "technologist")
    assert (last.score, last.category, last.why, last.scanner) == (0.34, "repeat", "5 of 7 slices below 40", "CT1")
    assert standing == last and (last.kind, last.reason, last.role) == (AnswerKind.REPEATED, "motion", "technologist")


def test_no_alarm_can_be_wrong_where_there_was_none(site: Site) -> None:
    number = site.add_series(score=0.9, category=Category.FINE)
    browser = site.client("technologist")

    refused = browser.post(f"/series/{number}/answer", data={"kind": "wrong_alarm"})
    page = browser.get(f"/series/{number}").text

    assert refused.status_code == 422
    assert "wrong_alarm" not in page.partition("<main")[2] and 'data-answer="kept"' in page
    with site.database.read() as connection:
        assert answers.of_series(connection, site.uid_of(number)) == []


@pytest.mark.parametrize("kind", ["", "deleted", "undo; kept", "KEPT"])
def test_only_known_answers_are_kept(site: Site, kind: str) -> None:
    number = site.add_series()

    assert site.client("technologist").post(f"/series/{number}/answer", data={"kind": kind}).status_code == 422
