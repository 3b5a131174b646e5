"""Where the receiver listens: sockets, with TLS or without, and how a supervisor hands them to it.

The supervisor keeps them open, so that callers wait in the backlog while the receiver starts again.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mediqa_node.network.tls import ServerTls

BACKLOG = 256
PLAIN, TLS = "plain", "tls"
_HANDED_OVER = "MEDIQA_LISTENING"


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket.

    Attributes:
        tls: for connections that begin with a TLS handshake; None: without.
    """

    socket: socket.socket
    tls: ServerTls | None = None

    @property
    def port(self) -> int:
        """The port; useful if 0 was requested."""
        return int(self.socket.getsockname()[1])

    def __str__(self) -> str:
        """Return address and port, for people."""
        host, port, *_ = self.socket.getsockname()
        return f"{f'[{host}]' if ':' in host else host}:{port}{' with TLS' if self.tls else ''}"


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address, a name or all interfaces; `::` takes IPv4 callers too, where the system can.

    Two programs never share the port (no SO_REUSEPORT).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)


def hand_over(sockets: Mapping[str, socket.socket]) -> dict[str, Any]:
    """Return the arguments of `subprocess.Popen` that let a process inherit sockets and `take_over` them."""
    named = ",".join(f"{name}={opened.fileno()}" for name, opened in sockets.items())
    return {
        "env": {**os.environ, _HANDED_OVER: named},
        "pass_fds": [opened.fileno() for opened in sockets.values()],
    }


def take_over() -> dict[str, socket.socket] | None:
    """Return the sockets that the supervisor has handed over; None if it has handed over none."""
    if not (named := os.environ.pop(_HANDED_OVER, "")):
        return None
    taken = {}
    for name, _, number in (part.partition("=") for part in named.split(",")):
        taken[name] = socket.socket(fileno=int(number))
        taken[name].set_inheritable(False)
    return taken
