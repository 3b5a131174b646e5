"""The courier's sweep of trends over a real database: points follow the worklist, and charts are judged."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.trend_cases import DAY, NOW, Scanner, sources, write

from mediqa_node.domain.control_chart import Rule
from mediqa_node.domain.trends import ChartState, Event, EventKind
from mediqa_node.pipeline.trends import TrendSweep
from mediqa_node.storage import trend_charts, trend_choices, trend_points, trend_views, worklist
from mediqa_node.storage.database import Database
from mediqa_node.storage.migrate import upgrade
from mediqa_node.storage.tables import series as series_table
from mediqa_node.storage.trend_charts import Broken, Chart
from mediqa_node.storage.trend_tables import trend_points as points_table
from mediqa_node.storage.workbench_tables import worklist as worklist_table


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'node.db'}")
    upgrade(made)
    yield made
    made.close()


def swept(database: Database, *scanners: Scanner) -> TrendSweep:
    first = 1
    for seed, scanner in enumerate(scanners):
        with database.write() as connection:
            write(connection, sources(scanner, first=first, seed=seed))
        first += scanner.n
    sweep = TrendSweep(database, time_zone=UTC, clock=lambda: NOW)
    while sweep.run():
        pass
    return sweep


def chart(database: Database, quantity: str = "score", scanner: str = "CT_1") -> Chart:
    with database.read() as connection:
        [found] = trend_views.charts(connection, at_most=10, quantity=quantity, scanner=scanner)
    return found


def broken(database: Database, quantity: str = "score") -> list[Broken]:
    with database.read() as connection:
        return trend_charts.broken_lately(connection, now=NOW, quantity=quantity)


def n_points(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(points_table)).scalar_one())


def test_a_step_change_planted_in_300_series_is_first_in_the_list_and_a_change_of_mix_is_not_in_it(
    database: Database,
) -> None:
    swept(
        database,
        Scanner(name="STEP", score_step=lambda share: -2.0 if share > 0.95 else 0.0),
        Scanner(name="MIX", mix=lambda share: (0.1, 0.2, 0.35, 0.35) if share > 0.5 else (0.2, 0.4, 0.3, 0.1)),
    )

    found = broken(database)

    assert [one.chart.scanner for one in found] == ["STEP"]
    assert Rule.EWMA in found[0].rules
    assert found[0].is_provisional
    assert found[0].since > NOW - 10 * DAY


def test_points_are_made_once_and_nothing_is_left_to_do(database: Database) -> None:
    sweep = swept(database, Scanner(n=30))

    assert n_points(database) == 30 * 8
    assert sweep.run() == 0
    with database.write() as connection:
        writer = trend_points.PointWriter(connection)
        one = sources(Scanner(n=30))[0]
        assert writer.replace(one, one.received_at, ()) is True
        assert writer.replace(one, one.received_at, ()) is False
    assert n_points(database) == 29 * 8


def test_a_series_that_is_rejected_leaves_its_charts(database: Database) -> None:
    sweep = swept(database, Scanner(n=30))
    with database.write() as connection:
        connection.execute(
            sa.update(series_table).where(series_table.c.series_instance_uid == "1.2.7").values(reason_code="rejected")
        )
        change = worklist.next_change(connection)
        connection.execute(sa.update(worklist_table).where(worklist_table.c.id == 7).values(change=change))

    while sweep.run():
        pass

    with database.read() as connection:
        assert trend_charts.of_series(connection, 7) == []
        assert len(trend_charts.of_series(connection, 8)) == 8


def test_a_score_of_untrained_weights_has_no_chart(database: Database) -> None:
    with database.write() as connection:
        write(connection, sources(Scanner(n=3)))
        connection.execute(sa.update(worklist_table).values(trained=False))

    TrendSweep(database, time_zone=UTC, clock=lambda: NOW).run()

    with database.read() as connection:
        assert {one.quantity for one in trend_charts.of_series(connection, 1)} == {
            "ctdi_vol", "dlp", "ct.noise.soft", "ct.dw", "ct.ssde", "ct.sharpness",
        }  # fmt: skip


def test_other_weights_begin_a_phase_that_is_not_compared_with_the_one_before(database: Database) -> None:
    swept(
        database,
        Scanner(
            weights=lambda share: "b" * 64 if share > 0.5 else "a" * 64,
            score_step=lambda share: -5.0 if share > 0.5 else 0.0,
        ),
    )

    with database.read() as connection:
        analysis = trend_charts.analyse(connection, chart(database))

    assert [why for _, why in analysis.starts] == ["first point", "weights"]
    assert not any(140 < signal.first < 160 for signal in analysis.judged.signals if signal.alarms)


def test_an_event_begins_a_phase_and_withdrawing_it_ends_that(database: Database) -> None:
    sweep = swept(database, Scanner(score_step=lambda share: -4.0 if share > 0.7 else 0.0))
    n_before = broken(database)[0].n_points
    event = Event(
        at=NOW - 0.3 * 120 * DAY, kind=EventKind.SERVICE, scanner="CT_1", note="tube", starts_phase=True, by="ada"
    )
    with database.write() as connection:
        number = trend_choices.add_event(connection, event, now=NOW)
    sweep.run()

    assert broken(database) == []

    with database.write() as connection:
        assert trend_choices.withdraw_event(connection, number, by="ada", at=NOW)
        assert not trend_choices.withdraw_event(connection, number, by="ada", at=NOW)
    sweep.run()
    assert broken(database)[0].n_points == n_before


def test_a_chosen_baseline_decides_until_it_is_withdrawn(database: Database) -> None:
    sweep = swept(database, Scanner())
    number = chart(database).id
    with database.write() as connection:
        made = trend_choices.choose_baseline(
            connection, number, NOW - 100 * DAY, NOW - 40 * DAY, reason="accepted", by="ada", at=NOW
        )
    sweep.run()
    assert chart(database).state is ChartState.CHOSEN

    with database.write() as connection:
        assert trend_choices.withdraw_baseline(connection, made, by="ada", at=NOW) == number
    sweep.run()
    assert chart(database).state is ChartState.PROVISIONAL


def test_a_change_while_a_chart_is_being_judged_is_not_lost(database: Database) -> None:
    swept(database, Scanner(n=60))
    known = chart(database)
    with database.read() as connection:
        analysis = trend_charts.analyse(connection, known)
    with database.write() as connection:
        trend_choices.choose_baseline(connection, known.id, 0.0, NOW, reason="", by="ada", at=NOW)
        trend_charts.save_alarms(connection, analysis, now=NOW)

    with database.read() as connection:
        assert [one.id for one in trend_charts.due(connection, at_most=10)] == [known.id]


def test_several_series_of_a_study_are_one_point(database: Database) -> None:
    found = sources(Scanner(n=30))
    found = [replace(one, study=(one.series - 1) // 3 * 3 + 1, size_class="Dw 240-280 mm") for one in found]
    with database.write() as connection:
        write(connection, found)
    TrendSweep(database, time_zone=UTC, clock=lambda: NOW).run()

    with database.read() as connection:
        analysis = trend_charts.analyse(connection, chart(database))

    assert len(analysis.points) == 10
    assert sorted([one.score for one in found[:3] if one.score])[1] == pytest.approx(analysis.points.value[0])
