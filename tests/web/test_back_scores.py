"""A back-score on the page of its series: alongside the reported score, or as its own without a report."""

from support.workbench import Site

from mediqa_node.domain.backscore import ItemState, Selection
from mediqa_node.domain.promotion import Weights
from mediqa_node.storage import assessments, backscores
from mediqa_node.storage.backscore_selection import Page


def test_a_score_that_is_kept_alongside_is_in_the_history(site: Site) -> None:
    number = site.add_series()
    uid, weights = site.uid_of(number), Weights(name="second", sha256="cd" * 32, card_sha256="")
    with site.database.write() as connection:
        same = {"with_reports": False, "total": 1, "by": "Anna", "at": site.clock()}
        one = backscores.find(connection, backscores.add(connection, Selection(), weights, **same))
        found = assessments.load_assessment(connection, uid, 1)
        assert one is not None
        assert found is not None
        [item] = backscores.take(connection, one, Page([(uid, 1)], uid, is_last=False))
        backscores.queue(connection, item, "job")
        assert backscores.keep_score(connection, item, ItemState.ALONGSIDE, found, at=site.clock())

    page = site.client("physicist").get(f"/series/{number}").text

    assert "back-score" in page
    assert "by second" in page
    assert "alongside revision 1, not reported" in page


def test_a_series_that_was_back_scored_is_not_said_to_lack_a_destination(site: Site) -> None:
    number = site.add_series(reason_code="back_scored")

    page = site.client("physicist").get(f"/series/{number}").text

    assert "it was back-scored, without a report" in page
    assert "no destination" not in page
