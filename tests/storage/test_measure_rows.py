"""Measures and baselines in both databases: kept whole, by content, and used only while approved."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.measured import index_series, measured_stack, measures

from mediqa_node.domain.baseline import Group, usual_values
from mediqa_node.domain.series import ReasonCode
from mediqa_node.storage import baselines
from mediqa_node.storage import measures as stored
from mediqa_node.storage.database import Database
from mediqa_node.storage.migrate import upgrade


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path / 'node.db'}" if request.param == "sqlite" else request.getfixturevalue("url")
    opened = Database(url)
    upgrade(opened)
    yield opened
    opened.close()


def test_measures_come_back_as_they_were(database: Database) -> None:
    one = measured_stack()

    with database.write() as connection:
        stored.save(connection, one, generation=3)
    with database.read() as connection:
        assert stored.load(connection, one.series_instance_uid, 3) == one
        assert stored.load(connection, one.series_instance_uid) == one
        assert stored.load(connection, one.series_instance_uid, 2) is None
        assert stored.load(connection, "1.2.3") is None


def test_the_same_content_is_measured_once_and_new_content_counts(database: Database) -> None:
    first, again, later = (measured_stack(measures=measures(noise)) for noise in (12.0, 13.0, 14.0))

    with database.write() as connection:
        stored.save(connection, first, generation=1)
        stored.save(connection, again, generation=1)
        stored.save(connection, later, generation=2)
        index_series(connection, later, generation=2)
    with database.read() as connection:
        assert stored.load(connection, first.series_instance_uid, 1) == again
        assert stored.load(connection, first.series_instance_uid) == later
        assert stored.newest(connection) == [later]
        assert stored.newest(connection, modality="MR") == []
        assert stored.newest(connection, until=1.0) == []


@pytest.mark.parametrize(
    ("generation", "reason"), [(3, None), (2, ReasonCode.REJECTED), (2, ReasonCode.PHANTOM)],
    ids=["changed since", "rejected", "phantom"],
)  # fmt: skip
def test_what_is_no_present_content_of_a_patient_does_not_count(
    database: Database, generation: int, reason: ReasonCode | None
) -> None:
    one = measured_stack()

    with database.write() as connection:
        stored.save(connection, one, generation=2)
        index_series(connection, one, generation=generation, reason_code=reason)
    with database.read() as connection:
        assert stored.newest(connection) == []


def test_long_names_of_a_header_are_cut_and_no_error(database: Database) -> None:
    one = measured_stack(protocol="P" * 300, scanner="S" * 300, kernel="K" * 300, stack="x" * 900)

    with database.write() as connection:
        stored.save(connection, one, generation=1)
    with database.read() as connection:
        found = stored.load(connection, one.series_instance_uid)

    assert found is not None
    assert (len(found.protocol), len(found.scanner), len(found.kernel), len(found.stack)) == (64, 64, 64, 200)


def test_a_baseline_counts_from_its_approval_until_another_is_approved(database: Database) -> None:
    series = [
        measured_stack(series_instance_uid=f"1.2.{i}", study_instance_uid=f"1.3.{i}", measures=measures(10.0 + i % 7))
        for i in range(40)
    ]
    usual = usual_values(series)
    group = Group.of(series[0])
    assert group is not None

    with database.write() as connection:
        first = baselines.make(connection, usual, since=0.0, until=9.0, by="Curie", now=10.0)
        second = baselines.make(
            connection, [replace(usual[0], median=99.0)], since=0.0, until=9.0, by="Curie", now=11.0
        )
    with database.read() as connection:
        assert baselines.active_usual(connection, group) == []
    with database.write() as connection:
        assert baselines.approve(connection, first, by="Curie", now=12.0)
        assert not baselines.approve(connection, first, by="Curie", now=12.0)
        assert not baselines.approve(connection, 77, by="Curie", now=12.0)
    with database.read() as connection:
        assert baselines.active_usual(connection, group) == [replace(one, baseline=first) for one in usual]
        assert baselines.active_usual(connection, None) == []
        assert baselines.active_usual(connection, replace(group, protocol="Head")) == []
    with database.write() as connection:
        assert baselines.approve(connection, second, by="Roentgen", now=13.0)
    with database.read() as connection:
        assert [one.median for one in baselines.active_usual(connection, group)] == [99.0]
        states = [(row.id, row.is_active, row.withdrawn_by) for row in baselines.every(connection)]
        assert states == [(first, False, "Roentgen"), (second, True, None)]
    with database.write() as connection:
        assert baselines.withdraw(connection, second, by="Roentgen", now=14.0)
        assert not baselines.withdraw(connection, second, by="Roentgen", now=14.0)
    with database.read() as connection:
        assert baselines.active_usual(connection, group) == []
