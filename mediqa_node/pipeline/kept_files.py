"""Received files as they were received: a score is never of other bytes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from mediqa_node.dicom.part10 import dataset_sha256
from mediqa_node.domain.errors import InvalidInstance
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.storage.index import InstanceRow

log = structlog.get_logger("worker")


class FileChanged(Exception):
    """A spooled file holds other bytes than were received: its score would be of nobody's image."""


def require_same(
    node: NodeContext, instances: Sequence[InstanceRow], digest_of: Callable[[Path], str] = dataset_sha256
) -> None:
    """Check that each file still holds the bytes that were received.

    Args:
        digest_of: of a file's dataset; another than the default knows files that were verified and not touched since.

    Raises:
        FileChanged: one does not.
        FileNotFoundError: one is missing.
    """
    for instance in instances:
        try:
            digest = digest_of(node.spool.path(instance.path))
        except InvalidInstance:
            digest = ""
        if digest != instance.sha256:
            log.error("spooled file has changed", file=instance.path, instance=instance.sop_instance_uid)
            raise FileChanged(f"{instance.path} holds other bytes than were received")
