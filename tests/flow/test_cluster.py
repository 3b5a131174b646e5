"""Two hosts on one PostgreSQL and one folder: what one leaves unfinished, the other finishes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster import Host, two_hosts
from support.orthanc import Orthanc
from support.outside import Sent, differences
from support.senders import storescu
from support.series import ct_series, series_uid
from support.waiting import need, until

from mediqa_node.storage import heartbeats
from mediqa_node.storage.leases import read_leases


@pytest.fixture
def pacs(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Orthanc]:
    """A real archive."""
    need(request.config, "/usr/sbin/Orthanc", "/usr/bin/storescu")
    running = Orthanc(tmp_path / "pacs").start()
    yield running
    running.stop()


@pytest.fixture
def hosts(tmp_path: Path, url: str, pacs: Orthanc) -> Iterator[tuple[Host, Host]]:
    """Two hosts that send reports to the archive."""
    peers = {"PACS": {"ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.dicom_port}}
    with two_hosts(tmp_path, url, peers=peers) as both:
        yield both


def holders(host: Host) -> dict[str, str]:
    """Return who holds which lease."""
    with host.database.read() as connection:
        return {row.name: row.holder for row in read_leases(connection) if row.left_s > 0}


def test_a_host_takes_over_from_one_that_is_killed(hosts: tuple[Host, Host], pacs: Orthanc, tmp_path: Path) -> None:
    a, b = hosts
    a.start()
    b.start()
    assert holders(b)["courier"] == "a/courier"
    with b.database.read() as connection:
        assert {beat.name for beat in heartbeats.read_heartbeats(connection) if beat.stands_by} == {"b/courier"}
    paths = ct_series(tmp_path / "ct", "x", slices=range(6))
    sent = Sent()
    sent.note(paths[:3], storescu(a.port, paths[:3]))

    a.kill_group()

    until(lambda: b.log("took over from a process that is gone"), "b takes over")
    sent.note(paths[3:], storescu(b.port, paths[3:]))
    assert sent.series == {series_uid(paths)}
    # one current report of all images, whether or not the first three had been reported by then
    until(lambda: not differences(sent, b.spool, pacs.reports()), "nothing is lost, and nothing is there twice")
    assert holders(b) == {"courier": "b/courier", "b/receiver": "b/receiver", "b/worker": "b/worker"}
