"""One running node and one Orthanc for each module: the worker takes seconds to import torch."""

from collections.abc import Iterator

import pytest
from support.node import Node
from support.orthanc import Orthanc
from support.waiting import need


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Orthanc]:
    """A PACS that takes everything."""
    need(request.config, "/usr/sbin/Orthanc", "/usr/bin/storescu")
    orthanc = Orthanc(tmp_path_factory.mktemp("pacs")).start()
    yield orthanc
    orthanc.stop()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: Orthanc) -> Iterator[Node]:
    """A running node whose reports go to the PACS, which also is an authority for corrections."""
    peers = {"PACS_MAIN": {"ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.dicom_port, "authority": True}}
    running = Node(tmp_path_factory.mktemp("node"), peers=peers, score={"primary": "first"})
    pacs.knows("node", "MEDIQA", running.port)
    running.start()
    yield running
    running.close()
