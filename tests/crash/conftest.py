"""A PACS for each module; nodes are started by the tests, because they are killed."""

from collections.abc import Callable, Iterator
from pathlib import Path

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


@pytest.fixture
def new_node(tmp_path: Path, pacs: Orthanc) -> Iterator[Callable[..., Node]]:
    """Make nodes that send to the PACS; they are ended after the test."""
    made: list[Node] = []

    def make(**settings: object) -> Node:
        peer = {"ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.dicom_port}
        made.append(Node(tmp_path / f"node{len(made)}", peers={"PACS_MAIN": peer}, **settings))
        return made[-1]

    yield make
    for node in made:
        node.close()
