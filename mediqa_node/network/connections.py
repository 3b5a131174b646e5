"""Connections on which no association is agreed yet: how many there are, and which has to leave for the next.

A newcomer always gets in. Where there is no room for it, the oldest connection of the address that has the most is
ended: whoever sends a request at once is answered long before its own turn comes, and silent callers keep nobody out.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Connection:
    """One of them, served by a thread of its own.

    Attributes:
        may_end: nothing is lost with it: its request has not arrived, or was rejected.
        made_room: it was ended for another.
    """

    socket: socket.socket
    address: str
    may_end: bool = True
    made_room: bool = False


class Connections:
    """The connections of one kind of caller, never more than a total and a number for each address.

    Args:
        ending_at_most: connections that have made room and whose threads have not noticed yet, as on a busy machine;
            while there are so many, no newcomer gets in.
    """

    def __init__(self, *, at_most: int, per_address: int, ending_at_most: int) -> None:
        self._at_most = at_most
        self._per_address = per_address
        self._ending_at_most = ending_at_most
        self._lock = threading.Lock()
        self._open: dict[str, dict[Connection, None]] = {}
        self._n_open = self._n_ending = 0

    def enter(self, accepted: socket.socket, address: str) -> Connection | None:
        """Return the connection, for which another may have been ended; None if there is no room."""
        with self._lock:
            if self._n_ending >= self._ending_at_most:
                return None
            if len(self._open.get(address, ())) >= self._per_address:
                fits = self._end_oldest(address)
            else:
                fits = self._n_open < self._at_most or self._end_oldest(self._greediest())
            if not fits:
                return None
            connection = Connection(accepted, address)
            self._open.setdefault(address, {})[connection] = None
            self._n_open += 1
            return connection

    def wrap(self, connection: Connection, layer: Callable[[socket.socket], socket.socket]) -> None:
        """Put a layer around the socket of a connection, such as TLS; whatever ends the connection then ends this."""
        with self._lock:
            connection.socket = layer(connection.socket)

    def leave(self, connection: Connection) -> None:
        """Forget a connection that is closed or has become an association."""
        with self._lock:
            if connection.made_room:
                self._n_ending -= 1
            else:
                self._remove(connection)

    def _greediest(self) -> str:
        return max(self._open, key=lambda address: len(self._open[address]))

    def _end_oldest(self, address: str) -> bool:
        oldest = next((one for one in self._open[address] if one.may_end), None)
        if oldest is None:
            return False
        oldest.made_room = True
        self._remove(oldest)
        self._n_ending += 1
        with contextlib.suppress(OSError):
            oldest.socket.shutdown(socket.SHUT_RDWR)
        return True

    def _remove(self, connection: Connection) -> None:
        same = self._open[connection.address]
        del same[connection]
        if not same:
            del self._open[connection.address]
        self._n_open -= 1
