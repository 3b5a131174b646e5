"""Trends on PostgreSQL: the same points, charts and lists as on SQLite."""

from datetime import UTC

from support.trend_cases import DAY, NOW, Scanner, add_around, sources, write

from mediqa_node.domain.trends import ChartState, Event, EventKind
from mediqa_node.pipeline.trends import TrendSweep
from mediqa_node.storage import promotions, trend_charts, trend_choices, trend_views
from mediqa_node.storage.database import Database
from mediqa_node.storage.migrate import upgrade


def test_charts_lists_and_doses_are_made_on_postgresql(url: str) -> None:
    database = Database(url)
    upgrade(database)
    with database.write() as connection:
        write(connection, sources(Scanner(n=120, score_step=lambda share: -4.0 if share > 0.9 else 0.0)))
    add_around(database)
    sweep = TrendSweep(database, time_zone=UTC, clock=lambda: NOW)
    while sweep.run():
        pass
    event = Event(at=NOW - 90 * DAY, kind=EventKind.OTHER, scanner="", note="", starts_phase=True, by="ada")

    with database.write() as connection:
        [chart] = trend_views.charts(connection, at_most=9, quantity="score")
        trend_choices.choose_baseline(connection, chart.id, NOW - 80 * DAY, NOW - 20 * DAY, reason="", by="ada", at=NOW)
        trend_choices.add_event(connection, event, now=NOW)
    while sweep.run():
        pass

    with database.read() as connection:
        assert trend_views.charts(connection, at_most=9, quantity="score")[0].state is ChartState.CHOSEN
        [broken] = trend_charts.broken_lately(connection, now=NOW, quantity="score")
        assert broken.worst > 3
        assert trend_charts.expected_lately(connection, now=NOW)[0] > 0
        period = {"since": NOW - 200 * DAY, "until": NOW + DAY}
        assert {dose.phantom_cm for dose in trend_views.doses(connection, fewest=20, **period)} == {32.0}
        assert len(trend_views.noise_and_dose(connection, protocol=chart.protocol, **period)) == 120
        [values] = trend_views.values_by_scanner(connection, "dlp", protocol=chart.protocol, **period)
        assert len(values.value) == 120
        assert trend_views.received_by_scanner(connection, **period)["CT_1"][0] == 120
        candidate = promotions.last_shadowed(connection)
        assert candidate is not None
        assert trend_views.shadowed(connection, candidate, at_most=9)
        assert trend_views.busiest_protocol(connection, "score") == chart.protocol
    database.close()
