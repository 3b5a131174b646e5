"""Take over what a dead receiver or worker of another host has left unfinished.

The courier that works for all hosts looks for leases that have run out. It takes such a lease itself, so that the dead
process can neither write nor start again meanwhile, finishes what was begun, and gives the lease back. Every step may
be repeated: a courier that dies in between leaves a lease that runs out, and the next one begins again.

A courier or forwarder that dies needs none of this: the one that takes its lease goes on from the same tables.
"""

import structlog

from mediqa_node.domain.cluster import LEASE_S, Member
from mediqa_node.domain.errors import MediqaError
from mediqa_node.pipeline.durable import DurableJobs
from mediqa_node.pipeline.forward.plan import ForwardPlan
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.recovery import recover
from mediqa_node.storage.database import Connection
from mediqa_node.storage.heartbeats import runs_without_lease
from mediqa_node.storage.leases import Held, LeaseRow, Leases

log = structlog.get_logger("courier")

_MAY_TAKE_S = 60.0
_RECEIVER, _WORKER = "receiver", "worker"


class TakeOver:
    """The sweep that takes over from dead processes.

    Args:
        leases: taken in the name of this courier.
        plan: the forward rules of the site; None without any.
    """

    def __init__(self, node: NodeContext, jobs: DurableJobs, leases: Leases, plan: ForwardPlan | None = None) -> None:
        self._node = node
        self._jobs = jobs
        self._leases = leases
        self._plan = plan

    def run(self) -> int:
        """Take over from every process whose lease has run out, or was taken before for that; return from how many."""
        rows, run_out = self._leases.look()
        rows = [row for row in rows if row.name in run_out or row.holder == self._leases.holder]
        if not rows:
            return 0
        with self._node.database.read() as connection:
            dead = [Member.named(row.name) for row in rows if self._may_be_taken(connection, row)]
        return sum(self._take_over_if_possible(member) for member in dead)

    def _take_over_if_possible(self, member: Member) -> bool:
        try:
            return self._take_over(member)
        except (MediqaError, OSError) as error:  # the others are taken over all the same
            log.warning("not taken over", process=member.name, reason=str(error), hourly_for=member.name)
            return False

    def _may_be_taken(self, connection: Connection, row: LeaseRow) -> bool:
        """Whether a lease is that of a receiver or worker; not of a node without hosts whose older version runs."""
        member = Member.named(row.name)
        if member.kind not in (_RECEIVER, _WORKER):
            return False
        is_older = member.host_id is None and runs_without_lease(connection, member.kind, now=self._node.clock())
        return not is_older

    def _take_over(self, member: Member) -> bool:
        held = self._leases.take(member.name, for_s=_MAY_TAKE_S)
        if held is None:  # it has come back, or another courier is at it
            return False
        found = self._of_receiver(member, held) if member.role == _RECEIVER else self._of_worker(member)
        self._leases.give_back(held.fence)
        log.warning("took over from a process that is gone", process=member.name, **found)
        return True

    def _of_receiver(self, member: Member, held: Held) -> dict[str, int]:
        node = self._node
        alive_at = held.lapsed_at - LEASE_S if held.lapsed_at > LEASE_S else None
        return recover(
            node.database, node.spool, now=node.clock(), plan=self._plan, owner=member.host_id, alive_at=alive_at
        )

    def _of_worker(self, member: Member) -> dict[str, int]:
        return {"jobs": self._jobs.take_back(member.name)}
