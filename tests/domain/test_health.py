"""When a person should look: exactly beyond the limits, and not a second before."""

import pytest

from mediqa_node.domain.health import ConcernKind, Destination, Heartbeat, Sweep, concerns

NOW = 1_800_000_000.0


def destination(**changes: object) -> Destination:
    values = {"name": "PACS", "n_waiting": 3, "oldest_at": NOW - 60} | changes
    return Destination(**values)  # type: ignore[arg-type]


def heartbeat(sweeps: dict[str, Sweep] | None = None, **changes: object) -> Heartbeat:
    values = {"name": "courier", "host": "node", "pid": 7, "started_at": NOW - 3600, "at": NOW, "sweeps": sweeps or {}}
    return Heartbeat(**(values | changes))  # type: ignore[arg-type]


def kinds(*found: Destination | Heartbeat, has_room: bool = True) -> list[tuple[ConcernKind, str]]:
    destinations = [one for one in found if isinstance(one, Destination)]
    beats = [one for one in found if isinstance(one, Heartbeat)]
    return [(one.kind, one.about) for one in concerns(destinations, beats, has_room=has_room, now=NOW)]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, None),
        ({"failing_since": NOW - 600}, None),
        ({"failing_since": NOW - 601}, ConcernKind.UNREACHABLE),
        ({"oldest_at": NOW - 1800}, None),
        ({"oldest_at": NOW - 1801}, ConcernKind.OLD_DELIVERY),
        ({"oldest_at": NOW - 90_000, "failing_since": NOW - 90_000}, ConcernKind.UNREACHABLE),
        ({"oldest_at": NOW + 86_400}, None),  # the clock was set back
    ],
)
def test_a_destination_needs_a_person(changes: dict[str, float], kind: ConcernKind | None) -> None:
    assert kinds(destination(**changes)) == ([(kind, "PACS")] if kind else [])


@pytest.mark.parametrize(
    ("every_s", "age_s", "silent_s", "late"),
    [
        (5.0, 50.0, 0.0, False),
        (5.0, 60.0, 0.0, False),  # the heartbeat itself is written every ten seconds
        (5.0, 60.1, 0.0, True),
        (5.0, 40.0, 20.1, True),
        (3600.0, 36_000.0, 0.0, False),
        (3600.0, 36_010.1, 0.0, True),
        (0.5, 15.1, 0.0, True),
        (5.0, 0.0, 100.0, True),
        (3600.0, 0.0, 100.0, False),
        (5.0, 0.0, -60.0, False),
        (5.0, 0.0, -86_400.0, True),  # the clock was set back, and the process has not written since
    ],
)
def test_a_sweep_is_late_after_ten_periods(every_s: float, age_s: float, silent_s: float, late: bool) -> None:
    beat = heartbeat({"liveness": Sweep(every_s=every_s, age_s=age_s)}, at=NOW - silent_s)

    assert kinds(beat) == ([(ConcernKind.LATE_SWEEP, "courier")] if late else [])


def test_a_silent_process_is_named_once() -> None:
    sweeps = {name: Sweep(every_s=1.0, age_s=0.1) for name in ("companions", "rounds")}
    [one] = concerns([], [heartbeat(sweeps, at=NOW - 101)], has_room=True, now=NOW)

    assert one.text == "heartbeat last ran 101 s ago and should run every 10 s"


@pytest.mark.parametrize(("n_open", "full"), [(31, False), (32, True), (34, True), (None, False)])
def test_a_receiver_at_its_limit_needs_a_person(n_open: int | None, full: bool) -> None:
    beat = heartbeat(name="receiver", n_associations=n_open, max_associations=None if n_open is None else 32)

    assert kinds(beat) == ([(ConcernKind.RECEIVER_FULL, "receiver")] if full else [])


def test_low_water_needs_a_person() -> None:
    assert kinds(has_room=False) == [(ConcernKind.LOW_WATER, "data")]


def test_a_destination_is_described_with_number_age_and_reason() -> None:
    dead = destination(failing_since=NOW - 720, oldest_at=NOW - 2400, why="10.0.0.5:104: connection refused")

    assert destination(n_waiting=1).sentence(NOW) == "1 report waits, for up to 60 s"
    assert dead.sentence(NOW) == (
        "3 reports wait, for up to 40 min; unreachable for 12 min: 10.0.0.5:104: connection refused"
    )
