"""Logs: one event a line, escaped, without patients."""

import json
import subprocess
import sys

import structlog

from mediqa_node import logs


def logged(code: str) -> list[dict[str, object]]:
    preamble = "import structlog; from mediqa_node import logs; logs.configure(json_lines=True)\n"
    preamble += "log = structlog.get_logger()\n"
    result = subprocess.run([sys.executable, "-c", preamble + code], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in result.stderr.splitlines()]


def test_what_a_peer_sends_cannot_forge_a_line() -> None:
    [event] = logged(r"log.warning('association rejected', calling_ae='X\n{\"event\": \"forged\"}\x1b[31m')")

    assert event["event"] == "association rejected"
    assert "\n" not in str(event["calling_ae"])
    assert "\x1b" not in str(event["calling_ae"])


def test_a_line_is_one_write_for_several_processes_share_an_unbuffered_file() -> None:
    code = """
import io, json, sys
class Raw(io.RawIOBase):
    def writable(self): return True
    def write(self, data): written.append(bytes(data)); return len(data)
written, shown = [], sys.stderr
sys.stderr = io.TextIOWrapper(Raw(), write_through=True)
logs.configure(json_lines=True)
log.info("one"); log.info("two")
for piece in written: print(json.dumps({"whole": piece.endswith(b"}\\n")}), file=shown)
"""
    assert [line["whole"] for line in logged(code)] == [True, True]


def test_a_log_on_a_full_disk_stops_nothing() -> None:
    code = """
import sys
shown, sys.stderr = sys.stderr, open("/dev/full", "w")
logs.configure(json_lines=True)
log.info("lost")
sys.stderr.flush()  # as libraries do, and Python at the end
sys.stderr = shown
logs.configure(json_lines=True)
structlog.get_logger().info("goes on")
"""
    assert [line["event"] for line in logged(code)] == ["goes on"]


def test_a_value_is_cut_before_it_floods_the_log() -> None:
    [event] = logged("log.info('x', comment='a' * 100000)")

    assert len(str(event["comment"])) < 1000


def test_a_traceback_shows_places_and_kind_but_neither_message_nor_variables() -> None:
    [event] = logged("patient = 'DOE^JANE'\ntry:\n    float(patient)\nexcept ValueError:\n    log.exception('failed')")

    assert event["error"] == "ValueError"
    assert "<string>:5" in str(event["where"])
    assert "DOE^JANE" not in json.dumps(event)


def test_warnings_of_libraries_do_not_quote_headers() -> None:
    events = logged("import warnings; warnings.warn('Invalid value DOE^JANE')")

    assert events == []


def test_a_library_that_is_imported_later_does_not_quote_headers() -> None:
    events = logged("import pydicom; pydicom.Dataset().PatientBirthDate = 'DOE^JANE'")

    assert events == []


def written(processor: logs.OnceAnHour, event: str, sender: object) -> dict[str, object] | None:
    try:
        return dict(processor(None, "info", {"event": event, "hourly_for": sender}))
    except structlog.DropEvent:
        return None


def test_a_line_that_can_be_repeated_is_written_once_an_hour_and_sender() -> None:
    now = 0.0
    lines = logs.OnceAnHour(lambda: now)

    assert written(lines, "refused", "CT_1") == {"event": "refused"}
    assert [written(lines, "refused", "CT_1") for _ in range(17)] == [None] * 17
    assert written(lines, "refused", "CT_2") == {"event": "refused"}
    assert written(lines, "ended", "CT_1") == {"event": "ended"}
    now = 3600.0
    assert written(lines, "refused", "CT_1") == {"event": "refused", "held_back": 17}
    assert written(lines, "refused", "CT_2") == {"event": "refused"}


def test_a_flood_of_sender_names_shares_one_line() -> None:
    now = 0.0
    lines = logs.OnceAnHour(lambda: now)

    assert len([n for n in range(1030) if written(lines, "rejected", n)]) == 1025
    assert written(lines, "ended", 2000), "another event is counted apart"
    now = 3600.0
    assert written(lines, "rejected", 2000), "an hour later there is room again"


def test_lines_without_a_sender_are_all_written() -> None:
    assert len(logged("for _ in range(3): log.info('series assessed')")) == 3
    assert len(logged("for _ in range(3): log.info('association rejected', hourly_for=('CT', '10.0.0.1'))")) == 1


def test_an_exception_that_nothing_caught_is_one_line() -> None:
    code = "import threading; logs.log_uncaught()\n"
    code += "thread = threading.Thread(target=lambda: float('DOE^JANE')); thread.start(); thread.join()\n"
    in_a_thread, in_the_process = logged(code + "try:\n    1 / 0\nexcept ArithmeticError as e:\n    logs._uncaught(e)")

    assert (in_a_thread["error"], in_the_process["error"]) == ("ValueError", "ZeroDivisionError")
    assert "DOE^JANE" not in json.dumps(in_a_thread)


def test_an_error_says_what_caused_it() -> None:
    raised = (
        "try:\n    try:\n        open('/nowhere')\n    except OSError as e:\n        raise ValueError('x') from e\n"
    )
    [event] = logged(raised + "except ValueError as error:\n    log.error('failed', exc_info=error)")

    assert (event["error"], event["cause"]) == ("ValueError", "FileNotFoundError")
