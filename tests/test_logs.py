"""Logs: one event a line, escaped, without patients."""

import json
import subprocess
import sys


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
