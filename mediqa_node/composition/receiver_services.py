"""Which services the receiver offers in addition to Verification and Storage, as far as the settings want them."""

import time
from typing import TYPE_CHECKING

from mediqa_node.config import Settings
from mediqa_node.storage.database import Database

if TYPE_CHECKING:
    from mediqa_node.network.services import Services


def receiver_services(settings: Settings, database: Database) -> "Services":
    """Return the services by abstract syntax and Command Field."""
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
    }
