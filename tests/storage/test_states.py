"""States are stored by value; a value that this version does not know is shown as it is; wording is free."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from support.bench import Bench
from support.series import ct_series, series_uid

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.series import DeliveryReason, InstanceStatus, Reason, ReasonCode, SeriesState
from mediqa_node.storage import index, outbox, overview
from mediqa_node.storage.tables import deliveries, instances, series


@pytest.fixture
def bench(tmp_path: Path):
    made = Bench(tmp_path / "bench", peers=[Peer(name="PACS", ae_title="PACS", host="127.0.0.1", port=1)])
    yield made
    made.close()


@pytest.fixture
def uid(bench: Bench, tmp_path: Path) -> str:
    paths = ct_series(tmp_path / "ct", "one")
    bench.receive_all(paths)
    bench.pass_time(10, until=lambda: bool(bench.deliveries(series_uid(paths))))
    return series_uid(paths)


def test_codes_of_another_version_are_shown_as_they_are(bench: Bench, uid: str) -> None:
    with bench.database.write() as connection:
        connection.execute(sa.update(series).values(state="LATER", reason_code="later_reason", reason="why"))
        connection.execute(sa.update(deliveries).values(state="on_its_way", reason_code="of_later", companions="x"))
        connection.execute(sa.update(instances).values(status="sleeping"))

    row, [delivery] = bench.series(uid), bench.deliveries(uid)

    assert (row.state, str(row.reason)) == ("LATER", "later reason: why")
    assert (delivery.state, delivery.reason_code, delivery.companions) == ("on_its_way", "of_later", "x")
    with bench.database.read() as connection:
        shown = overview.whole_series(connection, row)
    assert (shown["reason"], shown["reason_code"]) == ("later reason: why", "later_reason")


RETRIED = {
    SeriesState.PARKED: {ReasonCode.SCORING_FAILED, ReasonCode.FILE_MISSING, ReasonCode.FILE_CHANGED},
    SeriesState.WITHHELD: {
        ReasonCode.UNTRAINED,
        ReasonCode.IDENTITY,
        ReasonCode.NO_PATIENT_ID,
        ReasonCode.CONSTANCY_DRIFT,
        ReasonCode.CONSTANCY_UNKNOWN,
    },
}


@pytest.mark.parametrize("state", RETRIED)
def test_retry_selects_series_by_code_whatever_the_detail_reads(bench: Bench, uid: str, state: SeriesState) -> None:
    for code in ReasonCode:
        with bench.database.write() as connection:
            index.move(connection, uid, state, at=bench.now, reason=Reason(code, "scoring: untrained: identity:"))
            _, n_series = overview.retry(connection, [uid], now=bench.now)

        assert (code, n_series) == (code, int(code in RETRIED[state]))


def test_a_move_without_a_reason_clears_the_one_before(bench: Bench, uid: str) -> None:
    with bench.database.write() as connection:
        index.move(
            connection,
            uid,
            SeriesState.NOT_SCORED,
            at=1.0,
            reason=Reason(ReasonCode.OTHER_RECONSTRUCTION, "1.2.3"),
            scored_instead="1.2.3",
        )
        index.move(connection, uid, SeriesState.READY, at=2.0)

    row = bench.series(uid)
    assert (row.reason, row.scored_instead) == (None, None)


def test_every_code_fits_its_column_and_reads_as_words() -> None:
    columns = {
        series.c.reason_code: ReasonCode,
        series.c.state: SeriesState,
        instances.c.status: InstanceStatus,
        deliveries.c.reason_code: DeliveryReason,
    }

    too_long = [member for column, kind in columns.items() for member in kind if len(member) > column.type.length]
    assert too_long == []
    assert [code for code in ReasonCode if "_" in str(Reason(code, "detail"))] == []


def test_a_delivery_that_failed_says_why_by_code(bench: Bench, uid: str) -> None:
    bench.pass_time(120)

    [delivery] = bench.deliveries(uid)
    assert (delivery.state, delivery.reason_code) == ("waiting", "no_answer")
    with bench.database.read() as connection:
        assert outbox.deliveries_in(connection) == [delivery]
