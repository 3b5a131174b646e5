"""A running node for all tests of a file: its worker takes seconds to import torch."""

from collections.abc import Iterator

import pytest
from support.node import Node
from support.orthanc import Orthanc
from support.proxy import Proxy
from support.waiting import need

Running = tuple[Node, Proxy, Orthanc, Orthanc]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Running]:
    """A node with two destinations, real archives both, the second behind a proxy."""
    need(request.config, "/usr/sbin/Orthanc", "/usr/bin/storescu")
    main = Orthanc(tmp_path_factory.mktemp("main")).start()
    other = Orthanc(tmp_path_factory.mktemp("other"), ae_title="OTHER").start()
    proxy = Proxy(other.dicom_port)
    peers = {
        "PACS_MAIN": {"ae_title": main.ae_title, "host": "127.0.0.1", "port": main.dicom_port, "authority": True},
        "OTHER": {"ae_title": other.ae_title, "host": "127.0.0.1", "port": proxy.port},
    }
    node = Node(tmp_path_factory.mktemp("node"), peers=peers)
    main.knows("node", "MEDIQA", node.port)
    node.start()
    yield node, proxy, main, other
    node.close()
    proxy.stop()
    main.stop()
    other.stop()


@pytest.fixture
def two_pacs(running: Running) -> Running:
    """Node, proxy, the archive that is well, the archive behind the proxy, which only forwards so far."""
    proxy = running[1]
    proxy.refusing = proxy.stalled = False
    proxy.swallow = proxy.swallowed = 0
    return running


@pytest.fixture
def node(two_pacs: Running) -> Node:
    """The running node."""
    return two_pacs[0]


@pytest.fixture
def pacs(two_pacs: Running) -> Orthanc:
    """The archive that is well."""
    return two_pacs[2]
