"""Which processes a node has, which of them run, and what their exit status means."""

import signal
import sys
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING

import structlog

from mediqa_node.composition.resources import (
    open_database,
)
from mediqa_node.config import Settings
from mediqa_node.domain.cluster import Member
from mediqa_node.system.lock import is_locked

if TYPE_CHECKING:
    pass

log = structlog.get_logger("serve")

ROLES = ("receiver", "worker", "courier")
"""The processes that every node has."""
FORWARDER = "forwarder"
"""The process of a node that forwards what it receives."""
WEB = "web"
ALL_ROLES = (*ROLES, FORWARDER, WEB)
REFUSED = 78
"""Exit status of a process that cannot start as configured (sysexits EX_CONFIG): not tried again."""
RESTART = 75
"""Exit status of a worker that restarts with another checkpoint (sysexits EX_TEMPFAIL)."""
DRAIN_S = 30.0
"""How long the processes of a node may take to end."""
WEB_FIX = "pip install 'mediqa-node[web]'"
_WEB_PACKAGES = ("argon2", "fastapi", "jinja2", "multipart", "uvicorn")


def number_of(role: str) -> int:
    """Return the number of a process among those of its kind on this host, from 1.

    >>> number_of("worker"), number_of("worker-2")
    (1, 2)
    """
    return int(role.partition("-")[2] or 1)


def workers_of(settings: Settings) -> tuple[str, ...]:
    """Return the roles of the workers of this host: worker, worker-2, …"""
    return ("worker", *(f"worker-{number}" for number in range(2, settings.model.workers + 1)))


def running_roles(settings: Settings) -> list[str]:
    """Return the roles that run on this host: their lock is held."""
    known = [*workers_of(settings), *(role for role in ALL_ROLES if role != "worker")]
    return [role for role in known if is_locked(settings.lock_dir / f"{role}.lock")]


def running_processes(settings: Settings) -> list[str]:
    """Return the names of the processes that run on this host."""
    return [Member(settings.node.host_id, role).name for role in running_roles(settings)]


def missing_web_packages() -> list[str]:
    """Return the packages of the workbench that are not installed; `WEB_FIX` does so."""
    return [name for name in _WEB_PACKAGES if find_spec(name) is None]


def roles_of(settings: Settings) -> tuple[str, ...]:
    """Return the processes of this node.

    The forwarder runs if there is something to forward; the web process if it is wanted and its packages are installed.
    """
    roles = needed_roles(settings)
    if FORWARDER not in roles and _something_waits(settings):
        roles = (*roles, FORWARDER)
    if not settings.web.enabled:
        return roles
    if missing := missing_web_packages():
        log.warning("no workbench: packages are missing", packages=missing, fix=WEB_FIX)
        return roles
    return (*roles, WEB)


def needed_roles(settings: Settings) -> tuple[str, ...]:
    """Return the processes without which this configuration does not work."""
    further = workers_of(settings)[1:]
    return (*ROLES, *further, FORWARDER) if settings.forward else (*ROLES, *further)


def _something_waits(settings: Settings) -> bool:
    """Whether rules that are gone have left instances to forward."""
    from mediqa_node.storage import forwards

    database = open_database(settings)
    try:
        with database.read() as connection:
            return bool(forwards.queues(connection))
    finally:
        database.close()


def stop_at_a_signal(stop: threading.Event) -> None:
    """Stop at the first signal; another one, which service managers and terminals send, would wait for its lock."""

    def end(*_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def tell(text: str) -> None:
    """Print a line for the person at the terminal; a service manager has the log."""
    if sys.stdout.isatty():
        print(text, flush=True)  # noqa: T201
