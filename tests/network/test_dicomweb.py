"""Everything a DICOMweb server can answer, and what becomes of a report then."""

import contextlib
import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from support.bench import Bench
from support.series import ct_series, series_uid
from support.waiting import free_port
from support.web_pacs import Said, WebPacs, failed, stored, study, web_pacs

from mediqa_node.domain.errors import MediqaError, OutOfResources, PeerRefused, PeerUnavailable, QueryUnanswered
from mediqa_node.domain.identity import Identity
from mediqa_node.domain.peer import DicomWeb, Peer
from mediqa_node.network import dicomweb
from mediqa_node.network.peer_link import Link
from mediqa_node.network.sender import open_link
from mediqa_node.network.web_client import Answer
from mediqa_node.storage import overview

OBJECT = b"\0" * 128 + b"DICM" + bytes(range(256)) + b"\r\n--"
STUDY = "1.2.3"


@contextmanager
def linked(peer: Peer, timeout_s: float = 5.0) -> Iterator[Link]:
    with open_link(peer, [], ae_title="MEDIQA", timeout_s=timeout_s) as link:
        yield link


@pytest.fixture
def pacs() -> Iterator[WebPacs]:
    with web_pacs() as server:
        yield server


# ── STOW-RS ──────────────────────────────────────────────────────────────────


def test_an_object_leaves_to_the_byte_as_it_was_built(pacs: WebPacs) -> None:
    with linked(pacs.peer(base="/dicom-web/")) as link:
        assert link.store(OBJECT) == 0x0000

    assert pacs.stored == [OBJECT]
    [asked] = pacs.asked
    assert asked.path == "/dicom-web/studies"
    assert asked.headers["Content-Type"].startswith('multipart/related; type="application/dicom"; boundary=')
    assert "Authorization" not in asked.headers


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (Said(200), 0x0000),
        (Said(200, {}), 0x0000),
        (Said(raw=b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+xml\r\n\r\n<NativeDicomModel/>"), 0x0000),
        (Said(200, stored(), headers={"Content-Type": "application/json"}), 0x0000),
        (Said(200, stored()), 0x0000),
        (Said(200, [stored()]), 0x0000),
        (Said(202, stored(0xB007)), 0xB007),
        (Said(202, failed(0xB000)), 0xB000),
        (Said(409, failed(0x0111)), 0x0111),
    ],
)
def test_what_the_server_has_is_stored(pacs: WebPacs, said: Said, status: int) -> None:
    pacs.stores = [said]

    with linked(pacs.peer()) as link:
        assert link.store(OBJECT, was_sent=True) == status


@pytest.mark.parametrize("status", [200, 202, 409])
@pytest.mark.parametrize("reason", [0x0110, 0x0111, 0x0122, 0xA900, 0xC000])
def test_an_object_that_failed_has_the_status_of_a_c_store(pacs: WebPacs, status: int, reason: int) -> None:
    pacs.stores = [Said(status, failed(reason))]

    with linked(pacs.peer()) as link, pytest.raises(PeerRefused, match=f"{reason:#06x}") as caught:
        link.store(OBJECT)

    assert caught.value.status == reason


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (Said(409, failed(0xA700)), OutOfResources, "0xa700"),
        (Said(409), PeerRefused, "without a reason"),
        (Said(409, failed(0x0000)), PeerRefused, "0x0110"),
        (Said(202), PeerUnavailable, "does not say"),
        (Said(202, [[[]]]), PeerUnavailable, "does not say"),
        (Said(raw=b"HTTP/1.1 200 OK\r\n\r\n<html>Sign in</html>"), PeerUnavailable, "does not say"),
        (Said(200, {"error": "x"}, headers={"Content-Type": "application/json"}), PeerUnavailable, "does not say"),
        (Said(raw=b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\n\r\n<html>"), PeerUnavailable, "say"),
        *[(Said(status), PeerUnavailable, f"HTTP {status}") for status in (408, 429, 500, 502, 503, 504)],
        *[(Said(status), PeerRefused, "token_file") for status in (401, 403)],
        *[(Said(status), PeerRefused, f"HTTP {status}") for status in (400, 404, 411, 413, 415, 418, 501)],
        (Said(raw=b"220 smtp ready\r\n"), PeerUnavailable, "did not answer POST"),
        (Said(raw=b""), PeerUnavailable, "did not answer POST"),
        (Said(raw=b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000), PeerUnavailable, "did not answer POST"),
        (Said(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"), PeerUnavailable, "did not answer POST"),
        (Said(raw=b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 5_000_000), PeerUnavailable, "more than"),
    ],
)
def test_anything_else_may_pass_or_needs_a_person(
    pacs: WebPacs, said: Said, error: type[MediqaError], words: str
) -> None:
    pacs.stores = [said]

    with linked(pacs.peer()) as link, pytest.raises(error, match=words) as caught:
        link.store(OBJECT)

    assert type(caught.value) is error


def test_a_failure_in_xml_is_a_failure(pacs: WebPacs) -> None:
    body = b'<NativeDicomModel><DicomAttribute tag="00081198" vr="SQ"/></NativeDicomModel>'
    pacs.stores = [Said(raw=b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+xml\r\n\r\n" + body)]

    with linked(pacs.peer()) as link, pytest.raises(PeerRefused, match="0x0110"):
        link.store(OBJECT)


def test_a_redirect_is_not_followed(pacs: WebPacs) -> None:
    with web_pacs() as elsewhere:
        pacs.stores = [Said(307, headers={"Location": f"http://localhost:{elsewhere.port}/studies"})]

        with linked(pacs.peer()) as link, pytest.raises(PeerRefused, match="redirects are not followed"):
            link.store(OBJECT)

        assert elsewhere.asked == []


def test_proxies_of_the_environment_are_not_used(pacs: WebPacs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")

    with linked(pacs.peer()) as link:
        assert link.store(OBJECT) == 0x0000


@pytest.mark.parametrize("drip", [b"HTTP/1.1 200 OK\r\nContent-Length: 20", b"HTTP/1.1 100 Continue\r\n\r\n" * 99])
def test_a_server_that_sends_a_byte_at_a_time_ends_with_the_time(pacs: WebPacs, drip: bytes) -> None:
    pacs.stores = [Said(raw=drip, drips=True)]
    began = time.monotonic()

    with linked(pacs.peer(), timeout_s=0.5) as link, pytest.raises(PeerUnavailable, match="did not answer POST"):
        link.store(OBJECT)

    assert time.monotonic() - began < 2.0


def test_a_server_that_is_not_there_is_unavailable() -> None:
    peer = Peer(name="WEB", dicomweb=DicomWeb(url=f"http://127.0.0.1:{free_port()}"))

    with linked(peer) as link, pytest.raises(PeerUnavailable, match="did not answer"):
        link.verify()


# ── who is who ───────────────────────────────────────────────────────────────


def test_the_token_is_read_from_its_file_each_time(pacs: WebPacs, tmp_path: Path) -> None:
    file = tmp_path / "token"

    with linked(pacs.peer(token_file=file)) as link:
        for token in ("first", "second\n"):
            file.write_text(token)
            link.store(OBJECT)

    assert [asked.headers["Authorization"] for asked in pacs.asked] == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize("token", [None, "", "secret\r\nX: y", "two secrets", "sécret", "secret" * 10_000])
def test_a_file_that_holds_no_token_parks_the_report_and_is_not_quoted(
    pacs: WebPacs, tmp_path: Path, token: str | None
) -> None:
    if token is not None:
        (tmp_path / "token").write_text(token)

    with linked(pacs.peer(token_file=tmp_path / "token")) as link, pytest.raises(PeerRefused) as caught:
        link.store(OBJECT)

    assert "token_file" in str(caught.value)
    assert "cret" not in str(caught.value)
    assert pacs.asked == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"url": "ftp://archive/"}, "https://archive"),
        ({"url": "https://"}, "https://archive"),
        ({"url": "https://archive:port/"}, "[Pp]ort"),
        ({"url": "https://user:word@archive/"}, "token_file"),
        ({"url": "https://archive/?a=b"}, "token_file"),
        ({"url": "https://archive/a b"}, "https://archive"),
        ({"url": "http://archive/", "token_file": Path("t")}, "https://"),
        ({"url": "https://archive/", "key": Path("k")}, "key needs certificate"),
    ],
)
def test_an_address_that_would_betray_something_is_not_configured(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DicomWeb(**values)


def test_both_ends_prove_who_they_are_by_certificates(tmp_path: Path) -> None:
    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    ca.issue_cert("node").private_key_and_cert_chain_pem.write_to_path(tmp_path / "node.pem")
    (tmp_path / "broken.pem").write_text("no certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    ours, trusted = tmp_path / "node.pem", tmp_path / "ca.pem"
    with web_pacs(context) as pacs:
        with linked(pacs.peer(ca=trusted, certificate=ours)) as link:
            assert link.store(OBJECT) == 0x0000
        for access, error in (
            ({"ca": tmp_path / "other.pem", "certificate": ours}, PeerRefused),
            ({"certificate": ours}, PeerRefused),
            ({"ca": trusted, "certificate": tmp_path / "broken.pem"}, PeerRefused),
            ({"ca": tmp_path / "none.pem"}, PeerRefused),
            ({"ca": trusted}, PeerUnavailable),
        ):
            with linked(pacs.peer(**access)) as link, pytest.raises(error):
                link.store(OBJECT)

        assert len(pacs.asked) == 1


# ── QIDO-RS ──────────────────────────────────────────────────────────────────


def test_a_study_is_found_with_its_identity_and_others_are_left_out(pacs: WebPacs) -> None:
    pacs.holds = [study(STUDY, patient_id="P 1 ", issuer="HOSP", accession_number="A"), study("9.9", patient_id="Q")]

    with linked(pacs.peer()) as link:
        found = link.find_study(STUDY)

    assert found == [Identity(patient_id="P 1", issuer="HOSP", accession_number="A", study_instance_uid=STUDY)]
    assert pacs.asked[0].path.startswith(f"/dicom-web/studies?StudyInstanceUID={STUDY}&includefield=00100020")


def test_series_are_those_of_the_patient(pacs: WebPacs) -> None:
    series = [{"0020000E": {"Value": [uid]}, "00100020": {"Value": [who]}} for uid, who in (("1.1", "P"), ("1.2", "Q"))]
    pacs.holds = [*series, {"0020000E": {"Value": ["1.3"]}}]

    with linked(pacs.peer()) as link:
        assert link.find_series(STUDY, "P") == ["1.1", "1.3"]


@pytest.mark.parametrize("said", [Said(204), Said(200, [])])
def test_a_study_that_is_not_there_is_no_error(pacs: WebPacs, said: Said) -> None:
    pacs.queries = [said]

    with linked(pacs.peer()) as link:
        assert link.find_study(STUDY) == []


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_queries_is_sent_to_unasked(pacs: WebPacs, status: int) -> None:
    pacs.queries = [Said(status)] * 4

    with linked(pacs.peer()) as link:
        assert link.find_study(STUDY) is None
        assert link.find_series(STUDY, "P") == []
        assert link.has_instance(STUDY, "1.2", "1.3") is None


def test_an_instance_of_a_study_that_is_not_there_is_not_there(pacs: WebPacs) -> None:
    pacs.queries = [Said(404), Said(200, []), Said(200, [{"00080018": {"Value": ["1.3"]}}])]

    with linked(pacs.peer()) as link:
        assert link.has_instance(STUDY, "1.2", "1.3") is False
        assert link.has_instance(STUDY, "1.2", "1.3") is True


@pytest.mark.parametrize(
    "said",
    [
        Said(503),
        Said(206, []),
        Said(200, [], headers={"Warning": '299 x "The number of results exceeded the maximum"'}),
        Said(raw=b'HTTP/1.1 200 OK\r\nWarning: 299 x "results exceeded"\r\nWarning: 199 y "z"\r\n\r\n[]'),
        Said(200, {"error": "x"}),
        Said(200, [1]),
        Said(raw=b"HTTP/1.1 200 OK\r\n\r\n<html>"),
        Said(raw=b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 200_000),
        Said(200, [study(STUDY) | {"00100020": {"Value": [{"Alphabetic": "P"}]}}]),
        Said(200, [{"00100020": {"Value": ["P"]}}]),
        Said(raw=b""),
    ],
)
def test_a_query_without_a_readable_answer_proves_nothing(pacs: WebPacs, said: Said) -> None:
    pacs.queries = [said]

    with linked(pacs.peer()) as link, pytest.raises(QueryUnanswered):
        link.find_study(STUDY)


@pytest.mark.parametrize(("said", "error"), [(Said(200, []), None), (Said(204), None), (Said(403), PeerRefused)])
def test_echo_asks_for_one_study(pacs: WebPacs, said: Said, error: type[MediqaError] | None) -> None:
    pacs.queries = [said]

    with linked(pacs.peer()) as link:
        if error is None:
            link.verify()
        else:
            with pytest.raises(error):
                link.verify()

    assert pacs.asked[0].path == "/dicom-web/studies?limit=1"


@pytest.mark.parametrize(
    ("value", "least_s", "most_s"),
    [("120", 120, 120), ("999999", 3600, 3600), ("in two minutes", 110, 121), ("a minute ago", 0, 0), ("soon", 0, 0)],
)
def test_a_server_says_in_seconds_or_by_a_date_when_it_may_be_asked_again(
    value: str, least_s: float, most_s: float
) -> None:
    dates = {"in two minutes": time.time() + 120, "a minute ago": time.time() - 60}
    header = formatdate(dates[value], usegmt=True) if value in dates else value

    assert least_s <= dicomweb._retry_after_s(Answer(503, {"retry-after": header}, b"")) <= most_s


# ── a report on its way ──────────────────────────────────────────────────────


def test_a_report_waits_as_long_as_the_server_asks_and_is_parked_where_a_person_must_act(
    pacs: WebPacs, tmp_path: Path
) -> None:
    paths = ct_series(tmp_path / "images", "web")
    series = series_uid(paths)
    pacs.stores = [Said(503, headers={"Retry-After": "120"}), Said(401), Said(200, stored(0xB000))]
    bench = Bench(tmp_path / "bench", peers=[pacs.peer()])
    bench.receive_all(paths)
    bench.now += 3
    bench.complete_series()
    bench.work()

    bench.pass_time(100, step_s=5)
    assert [one.state for one in bench.deliveries(series)] == ["waiting"]
    assert len(pacs.stored) == 1
    bench.pass_time(60, step_s=5)
    [parked] = bench.deliveries(series)
    assert (parked.state, parked.reason_code) == ("parked", "refused")
    assert "token_file" in str(parked.message)
    with bench.database.write() as connection:
        overview.retry(connection, [str(parked.id)], now=bench.now)
    bench.pass_time(5)

    [sent] = bench.deliveries(series)
    assert (sent.state, sent.status) == ("sent", 0xB000)
    assert len(set(pacs.stored)) == 1, "built once, sent three times to the byte"
    bench.close()


# ── any JSON ─────────────────────────────────────────────────────────────────

_TAGS = st.sampled_from(["00100020", "0020000D", "00081197", "00081198", "00081199", "Value", "vr"])
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
ANY_JSON = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TAGS, inner, max_size=3), max_leaves=12
)


@given(ANY_JSON)
def test_any_json_is_an_outcome(content: Any) -> None:
    failure, warning, _ = dicomweb._outcome(Answer(200, {}, json.dumps(content).encode()))

    assert failure is None or 0 <= failure <= 0xFFFF
    assert 0 <= warning <= 0xFFFF


@given(st.dictionaries(_TAGS, ANY_JSON, max_size=4))
def test_any_match_is_an_identity_or_unreadable(match: dict[str, Any]) -> None:
    with contextlib.suppress(ValueError):
        assert dicomweb._study_identity(match).study_instance_uid
