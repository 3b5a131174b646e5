"""Names of the processes of a node that runs on several hosts, and how long one may be silent.

Each host has an id of its own (`node.host_id`), and each of its processes a name, such as `a/receiver`. A node on one
host needs no id: its processes are named by their role alone.

A process that must not run twice holds a lease (`storage.leases`). Receivers and workers hold one by their name; of the
couriers and forwarders of all hosts one holds the lease of the role, and the others stand by.
"""

import re
from dataclasses import dataclass

LEASE_S = 5.0
"""A process that has not renewed its lease for so long may be dead."""
GRACE_S = 2.0
"""It is taken for dead if it has still not done so after as long again in which the database answered others: when the
database itself was away, those that live renew their leases first."""
RENEW_EVERY_S = 1.0
TAKE_OVER_EVERY_S = 0.5
"""How often the courier looks for dead processes, and a courier that stands by for the lease."""
ONE_FOR_ALL = ("courier", "forwarder")
"""The roles of which one process works for all hosts."""
HOST_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,22}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Member:
    """A process of a node.

    Attributes:
        host_id: None: the node runs on one host.
        role: receiver, worker, worker-2, …, courier, forwarder or web.
    """

    host_id: str | None
    role: str

    @property
    def name(self) -> str:
        """Return the name, unique among all hosts.

        >>> Member("a", "worker-2").name, Member(None, "receiver").name
        ('a/worker-2', 'receiver')
        """
        return self.role if self.host_id is None else f"{self.host_id}/{self.role}"

    @property
    def kind(self) -> str:
        """Return the role without its number.

        >>> Member("a", "worker-2").kind
        'worker'
        """
        return self.role.partition("-")[0]

    @property
    def lease(self) -> str:
        """Return the name of the lease without which this process may not work."""
        return self.role if self.role in ONE_FOR_ALL else self.name

    @classmethod
    def named(cls, name: str) -> "Member":
        """Return the process of a name.

        >>> Member.named("a/worker-2")
        Member(host_id='a', role='worker-2')
        """
        host_id, _, role = name.rpartition("/")
        return cls(host_id or None, role)
