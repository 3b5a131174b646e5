"""Which services the receiver offers in addition to Verification and Storage, as far as the settings want them."""

import time
from collections.abc import Callable
from threading import Thread
from typing import TYPE_CHECKING

from mediqa_node.config import Settings
from mediqa_node.storage.database import Database

if TYPE_CHECKING:
    from mediqa_node.network.services import Services


def receiver_services(settings: Settings, database: Database, stopping: Callable[[], bool]) -> "Services":
    """Return the services by abstract syntax and Command Field, and begin to list what queries can find.

    Args:
        stopping: whether the process is about to end.
    """
    from mediqa_node.pipeline.commitment_services import commitment_services
    from mediqa_node.pipeline.procedure_steps import procedure_step_services

    receiver, peers = settings.receiver, settings.peers_of_settings()
    return {
        **commitment_services(
            database,
            peers,
            commit_with=receiver.commit_with,
            deadline_s=receiver.commitment_deadline_s,
            clock=time.time,
        ),
        **(procedure_step_services(database, clock=time.time) if receiver.mpps else {}),
        **(_queries(settings, database, stopping) if receiver.query else {}),
    }


def _queries(settings: Settings, database: Database, stopping: Callable[[], bool]) -> "Services":
    from mediqa_node.pipeline.query import QueryServices

    services = QueryServices(database=database, ae_title=settings.node.ae_title, peers=settings.peers_of_settings())
    Thread(target=services.list_objects, args=(stopping,), name="own objects", daemon=True).start()
    return services.services()
