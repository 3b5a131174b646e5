"""Processes of a node, and the only signal handling.

`serve` supervises its processes: the receiver (no torch), the worker (torch, one per GPU), the courier (sweeps,
deliveries), the forwarder if there is something to forward, and, if it is wanted and installed, the web process (pages,
no torch). A process that dies is started again and resumes its work from the database.
"""

from mediqa_node.service.processes import run_role
from mediqa_node.service.roles import (
    ALL_ROLES,
    DRAIN_S,
    ROLES,
    WEB_FIX,
    missing_web_packages,
    needed_roles,
    running_processes,
    running_roles,
    workers_of,
)
from mediqa_node.service.supervisor import Supervisor, serve

__all__ = [
    "ALL_ROLES",
    "DRAIN_S",
    "ROLES",
    "WEB_FIX",
    "Supervisor",
    "missing_web_packages",
    "needed_roles",
    "run_role",
    "running_processes",
    "running_roles",
    "serve",
    "workers_of",
]
