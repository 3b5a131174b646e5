"""`status` in each state in which a person should look, on a real database; `doctor` agrees."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest
import sqlalchemy as sa
import yaml
from support.bench import migrate
from support.siblings import before_release
from typer.testing import CliRunner

from mediqa_node import config, doctor
from mediqa_node.cli import app, register
from mediqa_node.cli.status import SHOWN
from mediqa_node.composition import data_folder, resources
from mediqa_node.domain.health import Heartbeat, Sweep
from mediqa_node.domain.series import DeliveryReason
from mediqa_node.service import ROLES
from mediqa_node.storage import clock, report_commitments
from mediqa_node.storage.clock import ClockRow
from mediqa_node.storage.correction_tables import retractions
from mediqa_node.storage.database import Database
from mediqa_node.storage.health import note_attempt
from mediqa_node.storage.heartbeats import write_heartbeat
from mediqa_node.storage.tables import deliveries, instances, series
from mediqa_node.system.lock import locked

REFUSED = "PACS (ARCHIVE at 10.0.0.5:104) is not reachable or did not answer"

register()


class Status:
    """A node's folder and database, and what the commands say about it."""

    def __init__(self, folder: Path) -> None:
        self.file, self.now = folder / "node.yaml", time.time()
        peers = {"PACS": {"ae_title": "ARCHIVE", "host": "10.0.0.5", "port": 104}}
        self.configure(peers=peers, returns=[{"to": ["PACS"]}], retention={"low_water_bytes": 0})
        settings = config.load(self.file, {})
        data_folder.make(settings)
        self.database: Database = resources.open_database(settings)
        migrate(self.database)

    def configure(self, **settings: object) -> None:
        known = yaml.safe_load(self.file.read_text()) if self.file.exists() else {}
        self.file.write_text(yaml.safe_dump(known | settings))

    def beats(self, **of_courier: object) -> None:
        """Let every role write a heartbeat; `of_courier` overrides that of the courier."""
        for role in ROLES:
            sweeps = {"liveness": Sweep(every_s=5.0, age_s=2.0)} if role == "courier" else {}
            counts = {"n_associations": 3, "max_associations": 32} if role == "receiver" else {}
            values = {"host": "node", "pid": 1, "started_at": self.now - 9000, "at": self.now, "sweeps": sweeps}
            changes = of_courier if role == "courier" else {}
            write_heartbeat(self.database, Heartbeat(name=role, **(values | counts | changes)))  # type: ignore[arg-type]

    def deliveries(self, n: int, *, age_s: float, state: str = "waiting", message: str | None = None) -> None:
        with self.database.write() as connection:
            for number in range(n):
                row = {"series_instance_uid": f"1.2.3.{state}.{number}", "state": state, "message": message}
                times = {"created_at": self.now - age_s + number, "not_before": 0.0, "wait_for_study_until": 0.0}
                more = {"revision": 1, "destination": "PACS", "attempts": 1, "jobs": 0}
                connection.execute(sa.insert(deliveries).values(**row, **times, **more))

    def fails(self, since_s: float) -> None:
        with self.database.write() as connection:
            at = self.now - since_s
            note_attempt(self.database, connection, "PACS", DeliveryReason.NO_ANSWER, REFUSED, at=at)

    def says(self) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["-c", str(self.file), "status"])
        return result.exit_code, result.stdout

    def as_json(self) -> dict[str, list[dict[str, object]]]:
        return json.loads(CliRunner().invoke(app, ["-c", str(self.file), "status", "--json"]).stdout)

    def doctor(self) -> list[tuple[str, str]]:
        """What `doctor` finds about the queues."""
        settings = config.load(self.file, {})
        return [(finding.mark, finding.text) for finding in doctor.queues(settings)]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Status]:
    """A node whose three processes run, as far as locks and heartbeats show."""
    made = Status(tmp_path)
    made.beats()
    with ExitStack() as held, patch("mediqa_node.storage.spool.Spool.free_bytes", lambda self: 141 * 10**9):
        for role in ROLES:
            held.enter_context(locked(tmp_path / "var" / f"{role}.lock"))
        yield made
    made.database.close()


def test_a_node_that_is_well_needs_nobody(node: Status) -> None:
    code, said = node.says()

    assert (code, node.doctor()) == (0, [("ok", "no report waits for a destination")]), said
    assert node.as_json()["concerns"] == []


def test_reports_that_wait_a_short_while_need_nobody(node: Status) -> None:
    node.deliveries(3, age_s=240)
    node.fails(since_s=180)

    code, said = node.says()

    line = f"PACS: 3 reports wait, for up to 4 min; unreachable for 3 min: {REFUSED}"
    assert code == 0, said
    assert f"            {line}\n" in said
    assert node.doctor() == [("ok", line)]


def test_a_dead_pacs_needs_a_person_after_ten_minutes(node: Status) -> None:
    node.deliveries(12, age_s=1000)
    node.fails(since_s=900)

    code, said = node.says()

    assert code == 1
    assert f"PACS: 12 reports wait, for up to 17 min; unreachable for 15 min: {REFUSED}\n" in said
    assert "→ mediqa-node echo PACS\n" in said
    [(mark, text)] = node.doctor()
    assert (mark, "unreachable for 15 min" in text) == ("problem", True)
    found = node.as_json()
    assert [(one["kind"], one["about"]) for one in found["concerns"]] == [("unreachable", "PACS")]
    [destination] = found["destinations"]
    assert (destination["n_waiting"], destination["failing_since"]) == (12, node.now - 900)


def test_a_report_that_waits_for_half_an_hour_needs_a_person(node: Status) -> None:
    node.deliveries(1, age_s=2400, message="waiting for the study at the destination")

    code, said = node.says()

    assert code == 1
    assert "PACS: 1 report waits, for up to 40 min: waiting for the study at the destination\n" in said
    assert [one["kind"] for one in node.as_json()["concerns"]] == ["old_delivery"]
    assert [mark for mark, _ in node.doctor()] == ["problem"]


def test_a_late_sweep_needs_a_person(node: Status) -> None:
    node.beats(sweeps={"liveness": Sweep(every_s=5.0, age_s=720.0), "rounds": Sweep(every_s=0.5, age_s=0.1)})

    code, said = node.says()

    assert code == 1
    assert "late        courier: liveness last ran 12 min ago and should run every 5 s\n" in said
    assert [mark for mark, _ in node.doctor()] == ["problem"]


def test_a_process_that_is_silent_needs_a_person(node: Status) -> None:
    node.beats(at=node.now - 7300)

    code, said = node.says()

    assert code == 1
    assert "late        courier: heartbeat last ran 2 h ago and should run every 10 s\n" in said


def test_a_receiver_at_its_limit_needs_a_person(node: Status) -> None:
    full = {"host": "node", "pid": 1, "started_at": node.now, "at": node.now, "sweeps": {}}
    write_heartbeat(node.database, Heartbeat(name="receiver", n_associations=32, max_associations=32, **full))

    code, said = node.says()

    assert code == 1
    assert "full        receiver: 32 of 32 associations are open: further ones are rejected\n" in said
    assert [mark for mark, _ in node.doctor()] == ["problem"]


def test_low_water_needs_a_person(node: Status) -> None:
    node.configure(retention={"low_water_bytes": 200 * 10**9})

    code, said = node.says()

    assert code == 1
    assert "→ nothing is received until 200 GB are free\n" in said
    found = node.as_json()
    assert ([one["kind"] for one in found["concerns"]], found["has_room"]) == (["low_water"], False)


@pytest.mark.parametrize(("state", "age_s", "code"), [("waiting", 60, 0), ("waiting", 2000, 1), ("parked", 60, 1)])
def test_what_stands_under_the_wrong_patient_is_listed_until_it_is_taken_back(
    node: Status, state: str, age_s: float, code: int
) -> None:
    why = "PACS refused the object (status 0x0122)" if state == "parked" else None
    with node.database.write() as connection:
        row = {"series_instance_uid": "1.2.3", "destination": "PACS", "report_sop_instance_uid": "1.2.4"}
        more = {"reason": "wrong_patient", "state": state, "attempts": 1, "message": why}
        times = {"not_before": 0.0, "created_at": node.now - age_s}
        connection.execute(sa.insert(retractions).values(**row, **more, **times))

    found, said = node.says()

    line = "retraction  report of series 1.2.3 at PACS, to be taken back (wrong patient)"
    assert found == code
    assert (f"{line}: {why}\n" if why else f"{line}\n") in said
    assert ("→ mediqa-node echo PACS, then mediqa-node retry 1.2.3\n" in said) == (state == "parked")
    assert [one["destination"] for one in node.as_json()["retractions"]] == ["PACS"]


def test_a_clock_that_was_set_far_forward_needs_a_person(node: Status) -> None:
    step = {"step_s": 40 * 86400.0, "stepped_at": node.now - 60, "paused_until": node.now + 86000}
    with node.database.write() as connection:
        clock.save(node.database, connection, ClockRow(boot_id="b", offset_s=0.0, seen_at=node.now, **step))

    code, said = node.says()

    assert code == 1
    assert "clock       the clock was set forward by 40 days, 60 s ago; nothing is deleted or given up" in said


def test_many_conflicts_take_few_lines(node: Status) -> None:
    node.deliveries(40, age_s=60, state="parked", message="PACS refused the object (status 0x0122)")
    with node.database.write() as connection:
        for number in range(500):
            add_disputed(connection, f"1.2.4.{number}")

    code, said = node.says()

    assert code == 1
    assert len(said.splitlines()) < 60
    assert said.count("parked      delivery") == said.count("further copy with other pixels") == SHOWN
    assert "30 more parked deliveries; mediqa-node series --state parked\n" in said
    assert "490 more series with differing copies; mediqa-node series --state withheld\n" in said
    found = node.as_json()
    assert (len(found["held"]), len(found["disputes"])) == (40, 500)


HOURS_S = 5.5 * 3600.0


def add_series(node: Status, n: int, **changes: object) -> None:
    row = {column.name: _blank(column) for column in series.c if not column.nullable}
    with node.database.write() as connection:
        for number in range(n):
            values = row | {"series_instance_uid": f"1.2.5.{number}"} | changes
            connection.execute(sa.insert(series).values(values))


@pytest.mark.parametrize(
    ("state", "since_s", "silent_s", "code"),
    [
        ("RECEIVING", HOURS_S, HOURS_S, 1),
        ("READY", HOURS_S, HOURS_S, 1),
        *before_release(
            ("READY", 4400.0, 4400.0, 0),  # a backlog is no fault for an hour
            ("RECEIVING", HOURS_S, 60.0, 0),  # images still come
            ("ASSESSED", HOURS_S, HOURS_S, 0),
            ("RECEIVING", -HOURS_S, -HOURS_S, 0),  # the clock was set back
        ),
    ],
)
def test_series_that_do_not_move_on_need_a_person(
    node: Status, state: str, since_s: float, silent_s: float, code: int
) -> None:
    add_series(node, 300, state=state, state_at=node.now - since_s, last_instance_at=node.now - silent_s)

    found, said = node.says()

    assert found == code, said
    line = f"stuck       series: 300 series have been {state.lower()} for up to 6 h, first 1.2.5.0\n"
    assert (line in said) == bool(code)
    assert len(said.splitlines()) < 15
    assert [mark for mark, _ in node.doctor()] == ["problem" if code else "ok"]


@pytest.mark.parametrize(
    ("state", "age_s", "code", "line"),
    [
        ("sent", 2000.0, 1, "PACS: the companions of 2 reports wait, for up to 33 min: not reachable\n"),
        *before_release(
            ("sent", 60.0, 0, "PACS: the companions of 2 reports wait, for up to 60 s: not reachable\n"),
            ("waiting", 2000.0, 1, "PACS: 2 reports wait, for up to 33 min\n"),
        ),
    ],
)
def test_companions_that_wait_long_need_a_person(node: Status, state: str, age_s: float, code: int, line: str) -> None:
    node.deliveries(2, age_s=age_s, state=state)
    if state == "sent":
        follows = {"done_at": node.now - age_s, "companions_at": node.now + 100, "companions_note": "not reachable"}
        with node.database.write() as connection:
            connection.execute(sa.update(deliveries).values(**follows))

    found, said = node.says()

    assert (found, line in said) == (code, True), said


def test_reports_without_a_commitment_for_a_day_need_a_person(node: Status) -> None:
    node.deliveries(2, age_s=200_000.0, state="sent")
    with node.database.write() as connection:
        for number, row in enumerate(connection.execute(sa.select(deliveries.c.id)).scalars().all()):
            uid = {"report_sop_instance_uid": f"1.2.3.{number}"}
            connection.execute(sa.update(deliveries).where(deliveries.c.id == row).values(**uid))
            since = node.now - 90_000 - 90_000 * number
            report_commitments.note(node.database, connection, [row], since=since, ask_at=node.now)

    found, said = node.says()

    assert found == 1
    assert "PACS: 2 reports sent, and no commitment to keep them for up to 2 days\n" in said
    assert [one["kind"] for one in node.as_json()["concerns"]] == ["not_committed"]
    assert [mark for mark, _ in node.doctor()] == ["problem"]


@pytest.mark.parametrize("lost", ["folder", *before_release("mount", "nothing")])
def test_images_that_are_gone_need_a_person(node: Status, lost: str) -> None:
    spool = node.file.parent / "var" / "spool"
    spool.mkdir()
    (spool / "1.dcm").touch()
    add_series(node, 1, state="NOT_SCORED")
    with node.database.write() as connection:
        copy = {column.name: _blank(column) for column in instances.c if not column.nullable and column.name != "id"}
        here = {"series_instance_uid": "1.2.5.0", "path": "1.dcm", "status": "current"}
        connection.execute(sa.insert(instances).values(copy | here))
    if lost != "nothing":
        (spool / "1.dcm").unlink()
    if lost == "folder":
        spool.rmdir()

    found, said = node.says()

    assert found == (lost != "nothing"), said
    assert ("lost        spool: " in said) == (lost != "nothing")
    assert spool.exists() == (lost != "folder"), "the command makes no folder where one is missing"
    assert [mark for mark, _ in node.doctor()] == ["ok" if lost == "nothing" else "problem"]


def add_disputed(connection: sa.Connection, uid: str) -> None:
    row = {column.name: _blank(column) for column in series.c if not column.nullable}
    connection.execute(sa.insert(series).values(row | {"series_instance_uid": uid, "state": "WITHHELD"}))
    copy = {column.name: _blank(column) for column in instances.c if not column.nullable and column.name != "id"}
    connection.execute(
        sa.insert(instances).values(
            copy | {"series_instance_uid": uid, "sop_instance_uid": uid, "path": uid, "status": "conflict"}
        )
    )


def _blank(column: sa.Column[object]) -> object:
    return "" if isinstance(column.type, sa.String) else 0
