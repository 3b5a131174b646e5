"""Leases: which process may work under a name, on whichever host, and what keeps its predecessor from writing.

A lease is a row with a token that grows whenever the lease is taken. Its holder renews it every second; one that has
not been renewed for five has run out. Each commit of the holder locks the row and compares the token
(`Database.fence`), so that a process that was stopped for a while (SIGSTOP, a virtual machine that is resumed) and
whose lease was taken meanwhile cannot write any more, whatever it still believes.

Time is that of the database, since the clocks of hosts differ. On SQLite a node has one host, whose processes hold file
locks (`system.lock`): a lease is always granted, and nothing is written.
"""

import socket
import time
from dataclasses import dataclass

import sqlalchemy as sa

from mediqa_node.domain.cluster import GRACE_S, LEASE_S
from mediqa_node.storage.cluster_tables import leases
from mediqa_node.storage.database import APPLICATION, Database, Fence, Fenced, clock_of

_NAME: sa.BindParameter[str] = sa.bindparam("name_", type_=sa.String)
_TOKEN: sa.BindParameter[int] = sa.bindparam("token_", type_=sa.Integer)
_ROW = sa.select(leases).where(leases.c.name == _NAME)
_LONGEST_GAP_S = 3.0
"""Between two looks at the leases. The database was away, or this process was stopped: what was seen before is void."""
_RENEW = sa.update(leases).where(leases.c.name == _NAME, leases.c.token == _TOKEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A lease that this process has taken.

    Attributes:
        lapsed_at: until when the lease held before, seconds since 1970 by the clock of the database; 0: it was given
            back, or never taken.
    """

    fence: Fence
    lapsed_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRow:
    """A lease as others see it.

    Attributes:
        left_s: seconds until it runs out; negative: it has.
    """

    name: str
    token: int
    holder: str
    machine: str
    left_s: float


class Leases:
    """The leases that one process takes, for itself or to take over from another.

    Args:
        holder: name of the process.
    """

    def __init__(self, database: Database, holder: str) -> None:
        self.database = database
        self.holder = holder
        self._machine = socket.gethostname()
        self._looked_at = float("-inf")
        self._run_out_since: dict[tuple[str, int], float] = {}

    def held_by_others(self) -> set[str]:
        """Return the leases that another process holds and renews, or may still renew."""
        rows, dead = self.look()
        mine = self.holder, self._machine
        return {row.name for row in rows if row.name not in dead and (row.holder, row.machine) != mine}

    def look(self) -> tuple[list[LeaseRow], set[str]]:
        """Return all leases, and which have run out and have stayed so for a while in which this process looked."""
        with self.database.read() as connection:
            found = read_leases(connection)
        rows = [row for row in found if row.left_s < 0]
        now = time.monotonic()
        if now - self._looked_at > _LONGEST_GAP_S:
            self._run_out_since.clear()
        self._looked_at = now
        seen = self._run_out_since
        self._run_out_since = {(row.name, row.token): seen.get((row.name, row.token), now) for row in rows}
        since = self._run_out_since
        return found, {row.name for row in rows if now - since[row.name, row.token] >= GRACE_S}

    def take(self, name: str, *, for_s: float = LEASE_S) -> Held | None:
        """Take a lease that nobody holds, or that an earlier process of the same name on this machine has left behind.

        That process is dead, since this one holds its file lock. The sessions of the one that held the lease before are
        ended first: a process that is stopped within a transaction would keep its rows locked.

        Returns:
            None: another process holds it.
        """
        database = self.database
        if database.is_sqlite:
            return Held(fence=Fence(name, 0), lapsed_at=0.0)
        with database.read() as connection:
            row = connection.execute(_ROW, {"name_": name}).one_or_none()
            now = connection.execute(sa.select(clock_of(connection))).scalar_one()
        if row is not None:
            if not self._is_free(row, now):
                return None
            _end_sessions(database, row.holder, but_of=self.holder)
        with database.write() as connection:
            connection.execute(
                database.insert_or_ignore(leases, name=name, token=0, holder=self.holder, machine="", until=0.0)
            )
            row = connection.execute(_ROW.with_for_update(), {"name_": name}).one()
            now = connection.execute(sa.select(clock_of(connection))).scalar_one()
            if not self._is_free(row, now):
                return None
            values = {"token": row.token + 1, "holder": self.holder, "machine": self._machine, "until": now + for_s}
            connection.execute(sa.update(leases).where(leases.c.name == name).values(**values))
        return Held(fence=Fence(name, row.token + 1), lapsed_at=row.until)

    def _is_free(self, row: sa.Row[tuple[object, ...]], now: float) -> bool:
        return bool(row.until <= now or (row.holder, row.machine) == (self.holder, self._machine))

    def renew(self, fence: Fence, *, for_s: float = LEASE_S) -> bool:
        """Return whether the lease is still held, for a while from now on.

        Raises:
            StorageFailed: the database does not answer.
        """
        return self._set(fence, for_s)

    def give_back(self, fence: Fence) -> None:
        """Let others take the lease at once.

        Raises:
            StorageFailed: the database does not answer.
        """
        self._set(fence, None)

    def _set(self, fence: Fence, for_s: float | None) -> bool:
        if self.database.is_sqlite:
            return True
        try:
            with self.database.write() as connection:
                connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")  # losing a renewal costs nothing
                until = 0.0 if for_s is None else clock_of(connection) + for_s
                held = {"name_": fence.name, "token_": fence.token}
                return bool(connection.execute(_RENEW.values(until=until), held).rowcount)
        except Fenced:
            return False


def read_leases(connection: sa.Connection) -> list[LeaseRow]:
    """Return the leases that are held or have run out, by name; not those that were given back."""
    left = leases.c.until - clock_of(connection)
    query = sa.select(leases.c.name, leases.c.token, leases.c.holder, leases.c.machine, left.label("left_s"))
    rows = connection.execute(query.where(leases.c.until > 0).order_by(leases.c.name))
    return [LeaseRow(**row._mapping) for row in rows]


def _end_sessions(database: Database, holder: str, *, but_of: str) -> None:
    """End the sessions of a process at the server, within a second."""
    if holder == but_of:  # they ended with the process before this one
        return
    with database.read() as connection:
        connection.execute(
            sa.text("SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE application_name = :name"),
            {"name": f"{APPLICATION} {holder}"},
        ).all()
