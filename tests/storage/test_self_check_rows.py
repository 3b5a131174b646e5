"""Series that a self-check may compare, and its results, in both databases."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.factories import CARD, WEIGHTS, assessment, ct_volume, technique
from support.measured import index_series, measured_stack

from mediqa_node.domain.promotion import Weights
from mediqa_node.domain.range_position import OUTSIDE_RANGE
from mediqa_node.domain.self_check import Figures, PairKind, SelfCheck, State
from mediqa_node.domain.series import ReasonCode
from mediqa_node.storage import assessments, self_checks
from mediqa_node.storage.database import Connection, Database
from mediqa_node.storage.migrate import upgrade
from mediqa_node.storage.tables import series

ACTIVE = Weights(name="default", sha256=WEIGHTS, card_sha256=CARD)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path / 'node.db'}" if request.param == "sqlite" else request.getfixturevalue("url")
    opened = Database(url)
    upgrade(opened)
    yield opened
    opened.close()


def keep(connection: Connection, study: str, *uids: str, reason: str | None = None) -> None:
    """Enter assessed series of a study, each with its parameters."""
    primary = ct_volume().assessment.primary
    for uid in uids:
        stack = replace(primary.stack, series_instance_uid=uid, study_instance_uid=study)
        one = assessment(replace(primary, stack=stack, quality=0.5), series_instance_uid=uid, study_instance_uid=study)
        index_series(connection, measured_stack(series_instance_uid=uid, study_instance_uid=study), reason_code=reason)
        assessments.save_technique(connection, uid, technique(mas=120.0))
        assessments.save_assessment(connection, one, generation=1)


def test_series_of_studies_with_several_scores_come_with_them(database: Database) -> None:
    with database.write() as connection:
        keep(connection, "1.1", "1.1.1", "1.1.2")
        keep(connection, "1.2", "1.2.1")
        keep(connection, "1.3", "1.3.1", "1.3.2", reason=ReasonCode.IDENTITY)
    with database.read() as connection:
        assert self_checks.studies(connection, ACTIVE) == ["1.1"]
        assert self_checks.studies(connection, ACTIVE, since=1.0) == []
        assert self_checks.studies(connection, replace(ACTIVE, sha256="00" * 32)) == []
        found = self_checks.comparable(connection, ["1.1"], ACTIVE)
        assert [(one.series_instance_uid, one.study_instance_uid, one.quality) for one in found] == [
            ("1.1.1", "1.1", 0.5),
            ("1.1.2", "1.1", 0.5),
        ]
        assert self_checks.comparable(connection, ["1.1"], replace(ACTIVE, card_sha256="00" * 32)) == []
        assert [uid for uid, _ in self_checks.techniques_of(connection, ["1.1", "1.2"])["1.1"]] == ["1.1.1", "1.1.2"]
        [stack] = self_checks.scored_stacks(connection, ["1.1.1"]).values()
        assert (stack.stack.series_instance_uid, stack.n_stacks, stack.path) == ("1.1.1", 1, None)
        assert self_checks.scored_stacks(connection, []) == {}


def test_a_score_outside_the_training_range_is_compared_with_none(database: Database) -> None:
    with database.write() as connection:
        keep(connection, "1.1", "1.1.1", "1.1.2")
        outside = sa.update(assessments.assessments).where(assessments.assessments.c.series_instance_uid == "1.1.2")
        connection.execute(outside.values(verdict=OUTSIDE_RANGE))
    with database.read() as connection:
        assert self_checks.studies(connection, ACTIVE) == []


def test_content_that_changed_since_its_score_does_not_count(database: Database) -> None:
    with database.write() as connection:
        keep(connection, "1.1", "1.1.1", "1.1.2")
        connection.execute(sa.update(series).where(series.c.series_instance_uid == "1.1.2").values(generation=2))
    with database.read() as connection:
        assert self_checks.studies(connection, ACTIVE) == []


def test_the_last_result_replaces_the_one_before(database: Database) -> None:
    first = SelfCheck(
        checked_at=1.0,
        software_version="0.2",
        weights=ACTIVE,
        figures=(Figures(kind=PairKind.KERNEL, n=8, n_expected=8, n_ties=0),),
    )
    second = replace(first, checked_at=2.0, figures=(Figures(kind=PairKind.DOSE, n=9, n_expected=1, n_ties=3),))

    with database.read() as connection:
        assert self_checks.last(connection) is None
    for check in (first, second):
        with database.write() as connection:
            self_checks.save(connection, check)

    with database.read() as connection:
        found = self_checks.last(connection)
        assert connection.execute(sa.select(sa.func.count()).select_from(self_checks.self_checks)).scalar_one() == 1
    assert found == second
    assert found.figures[0].state is State.DOES_NOT_ORDER


def test_a_kind_of_a_later_version_is_left_out(database: Database) -> None:
    check = SelfCheck(checked_at=1.0, software_version="9", weights=ACTIVE, figures=())
    later = [{"kind": "filter", "n": 1, "n_expected": 1, "n_ties": 0}]

    with database.write() as connection:
        self_checks.save(connection, check)
        connection.execute(sa.update(self_checks.self_checks).values(figures=later))
    with database.read() as connection:
        assert self_checks.last(connection) == check
