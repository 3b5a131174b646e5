"""When a person should look at a node: what its processes and its destinations have written down, and the limits."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mediqa_node.domain.cluster import Member
from mediqa_node.domain.forward import ForwardGap, ForwardQueue
from mediqa_node.domain.tls import EXPIRES_SOON_S, TlsFile

HEARTBEAT_EVERY_S = 10.0
"""How often each process writes its row."""
SILENT_AFTER_S = 3 * HEARTBEAT_EVERY_S
"""A process that has not written for so long does not run."""
UNREACHABLE_AFTER_S = 600.0
OLDEST_AFTER_S = 1800.0
LATE_AFTER_PERIODS = 10
STUCK_AFTER_S = 3600.0
"""After this and `completion.forced_after_s`."""
UNCOMMITTED_AFTER_S = 86_400.0


def span(seconds: float) -> str:
    """Return a span of time in one unit.

    >>> span(12), span(600), span(1e5), span(1e6)
    ('12 s', '10 min', '28 h', '12 days')
    """
    for limit, unit, length in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{max(seconds, 0) / length:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


class ConcernKind(StrEnum):
    """Why a person should look."""

    UNREACHABLE = "unreachable"
    OLD_DELIVERY = "old_delivery"
    LATE_SWEEP = "late_sweep"
    RECEIVER_FULL = "receiver_full"
    LOW_WATER = "low_water"
    STUCK_SERIES = "stuck_series"
    NO_IMAGES = "no_images"
    FORWARD_HELD = "forward_held"
    FORWARD_MISSING = "forward_missing"
    TLS_FILES = "tls_files"
    NOT_COMMITTED = "not_committed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """Something that a person should look at.

    Attributes:
        about: the destination, the role or the folder.
        fix: the next step.
    """

    kind: ConcernKind
    about: str
    text: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """What waits for a destination, and whether it answers. Times are seconds since 1970.

    Attributes:
        oldest_at: when the delivery that has waited longest was asked for, or followed a report.
        failing_since: the first failed attempt since its last answer; None: it answered, or was not tried yet.
        why: what the last attempt failed with, or what a delivery waits for; "" if nothing is known.
        n_companions: reports that have arrived, and whose pictures or maps wait.
        n_forwards: received instances that wait to be forwarded.
    """

    name: str
    n_waiting: int
    oldest_at: float
    failing_since: float | None = None
    why: str = ""
    n_companions: int = 0
    n_forwards: int = 0

    def sentence(self, now: float) -> str:
        """Return the state of the destination in words."""
        what = [_reports(self.n_waiting)] if self.n_waiting else []
        what += [f"the companions of {_reports(self.n_companions)}"] if self.n_companions else []
        what += (
            [f"{self.n_forwards:,} {'instance' if self.n_forwards == 1 else 'instances'}"] if self.n_forwards else []
        )
        is_one = (self.n_waiting + self.n_forwards, self.n_companions) == (1, 0)
        waits = "waits" if is_one else "wait"
        text = f"{' and '.join(what)} {waits}, for up to {span(now - self.oldest_at)}"
        if self.failing_since is not None:
            text += f"; unreachable for {span(now - self.failing_since)}"
        return f"{text}: {self.why}" if self.why else text


def _reports(n: int) -> str:
    return f"{n:,} {'report' if n == 1 else 'reports'}"


def _instances(n: int) -> str:
    return f"{n:,} {'instance' if n == 1 else 'instances'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """Series that have waited too long in one state.

    Attributes:
        state: RECEIVING or READY.
        oldest_at: when the first of them came into it, seconds since 1970.
        oldest_uid: its Series Instance UID.
    """

    state: str
    n: int
    oldest_at: float
    oldest_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncommitted:
    """Reports or instances that a destination took long ago, and does not commit to keep.

    Attributes:
        oldest_at: since when, seconds since 1970.
    """

    name: str
    n: int
    oldest_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A periodic task of a process.

    Attributes:
        every_s: its period.
        age_s: time since it last ended, by a clock that nobody sets, when the heartbeat was written.
    """

    every_s: float
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What a process last wrote about itself.

    Attributes:
        name: `domain.cluster.Member.name`.
        host: name of its machine.
        at: when, seconds since 1970.
        n_associations, max_associations: of a receiver; None for other roles.
        stands_by: another host's process of its role works.
        ended_at: it was asked to stop; None: it runs, or has fallen.
    """

    name: str
    host: str
    pid: int
    started_at: float
    at: float
    sweeps: Mapping[str, Sweep]
    n_associations: int | None = None
    max_associations: int | None = None
    stands_by: bool = False
    ended_at: float | None = None

    @property
    def role(self) -> str:
        """Return the role: receiver, worker, worker-2, …"""
        return Member.named(self.name).role

    @property
    def kind(self) -> str:
        """Return the role without its number."""
        return Member.named(self.name).kind

    def is_alive(self, now: float) -> bool:
        """Whether the process has given a sign of life lately, and was not asked to stop."""
        return self.ended_at is None and abs(now - self.at) <= SILENT_AFTER_S

    def late(self, now: float) -> Iterator[tuple[str, Sweep]]:
        """Return the sweeps that are ten periods late, with their present age; `heartbeat` is one of them.

        A heartbeat as far ahead is late too: the clock was set back, and the process has not written since.
        """
        silent_s = now - self.at
        if abs(silent_s) > LATE_AFTER_PERIODS * HEARTBEAT_EVERY_S:
            yield "heartbeat", Sweep(every_s=HEARTBEAT_EVERY_S, age_s=abs(silent_s))
            return  # of the others nothing is known
        for name, sweep in self.sweeps.items():
            age_s = sweep.age_s + max(0.0, silent_s)
            if age_s > LATE_AFTER_PERIODS * sweep.every_s + HEARTBEAT_EVERY_S:
                yield name, Sweep(every_s=sweep.every_s, age_s=age_s)


def process_states(
    beats: Sequence[Heartbeat], running: Collection[str], host_id: str | None, now: float
) -> Iterator[tuple[str, str, Heartbeat | None]]:
    """Return name, state in words and last heartbeat of each process of the node, those of this host first.

    Args:
        running: names of the processes that run on this host, by their locks.
    """
    known = {beat.name: beat for beat in beats}
    elsewhere = sorted(name for name in known if Member.named(name).host_id != host_id)
    own = {Member(host_id, role).name for role in ("receiver", "worker", "courier", "web")} | set(running)
    for name in [*sorted(own | (set(known) - set(elsewhere))), *elsewhere]:
        beat = known.get(name)
        runs = name in running or (name in elsewhere and known[name].is_alive(now))
        state = "stopped" if not runs else "stands by" if beat is not None and beat.stands_by else "runs"
        yield name, state, beat


def concerns(
    destinations: Sequence[Destination],
    heartbeats: Sequence[Heartbeat],
    *,
    has_room: bool,
    now: float,
    stuck: Sequence[Stuck] = (),
    no_images: str = "",
    forwards: Sequence[ForwardQueue] = (),
    gaps: Sequence[ForwardGap] = (),
    tls: Sequence[TlsFile] = (),
    uncommitted: Sequence[Uncommitted] = (),
    uncommitted_forwards: Sequence[Uncommitted] = (),
) -> Iterator[Concern]:
    """Return what a person should look at.

    Args:
        heartbeats: of the processes that run.
        has_room: whether the spool has more free space than `retention.low_water_bytes`.
        no_images: why received images cannot be read; "" if they can.
        forwards: what is not at a destination of forwards yet.
        gaps: what such a destination has acknowledged and does not hold.
    """
    for destination in destinations:
        if (kind := _of_destination(destination, now)) is not None:
            yield Concern(
                kind=kind,
                about=destination.name,
                text=destination.sentence(now),
                fix=f"mediqa-node echo {destination.name}",
            )
    for beat in heartbeats:
        yield from _of_process(beat, now)
    if not has_room:
        yield Concern(
            kind=ConcernKind.LOW_WATER,
            about="data",
            text="less is free than `retention.low_water_bytes`: nothing is received",
            fix="free space, or lower `retention.days`",
        )
    for some in stuck:
        yield _of_series(some, now)
    yield from _of_forwards(forwards, gaps)
    if no_images:
        fix = "mount or restore it, then restart the node; `mediqa-node verify` names what is missing"
        yield Concern(kind=ConcernKind.NO_IMAGES, about="spool", text=no_images, fix=fix)
    reports = [(one, f"{_reports(one.n)} sent", "") for one in uncommitted]
    images = [
        (one, f"{_instances(one.n)} forwarded", "; until it comes, none is deleted") for one in uncommitted_forwards
    ]
    for one, what, so in (*reports, *images):
        yield Concern(
            kind=ConcernKind.NOT_COMMITTED,
            about=one.name,
            text=f"{what}, and no commitment to keep them for up to {span(now - one.oldest_at)}{so}",
            fix=f"let {one.name} know AE title, host and port of this node, and admit it in `receiver.allowed`",
        )
    yield from of_tls(tls, now)


def of_tls(files: Sequence[TlsFile], now: float) -> Iterator[Concern]:
    """Return the files of TLS that cannot be used, or expire within 30 days."""
    for file in files:
        is_ours = file.key.startswith("receiver.")
        text, fix = file.problem, "correct it: until then nothing goes to this peer"
        if is_ours:
            fix = "correct it: until then the receiver keeps what it has loaded before, and after a restart has no TLS"
        if not text and file.expires_at is not None and file.expires_at - now < EXPIRES_SOON_S:
            left = file.expires_at - now
            when = f"expires in {span(left)}" if left > 0 else f"expired {span(-left)} ago"
            text, fix = f"{file.holds} in {file.file} {when}", "replace the file; it is loaded without a restart"
        if text:
            yield Concern(kind=ConcernKind.TLS_FILES, about=file.key, text=text, fix=fix)


def _of_forwards(queues: Sequence[ForwardQueue], gaps: Sequence[ForwardGap]) -> Iterator[Concern]:
    for queue in queues:
        parts = [f"{queue.n_held:,} held because copies differ"] if queue.n_held else []
        parts += [f"{queue.n_parked:,} refused"] if queue.n_parked else []
        if parts:
            yield Concern(
                kind=ConcernKind.FORWARD_HELD,
                about=queue.destination,
                text=f"instances that are not forwarded: {' and '.join(parts)}",
                fix="mediqa-node forward list",
            )
    for gap in gaps:
        studies = "1 study" if gap.n_studies == 1 else f"{gap.n_studies:,} studies"
        yield Concern(
            kind=ConcernKind.FORWARD_MISSING,
            about=gap.destination,
            text=f"{_instances(gap.n_instances)} of {studies} that it has acknowledged are not there",
            fix="mediqa-node forward gaps, then mediqa-node forward reconcile --send-again",
        )


def _of_series(stuck: Stuck, now: float) -> Concern:
    series = "1 series has" if stuck.n == 1 else f"{stuck.n:,} series have"
    return Concern(
        kind=ConcernKind.STUCK_SERIES,
        about="series",
        text=f"{series} been {stuck.state} for up to {span(now - stuck.oldest_at)}, first {stuck.oldest_uid}",
        fix="read the log of `mediqa-node serve`: a file cannot be read, or scoring is slow; mediqa-node verify",
    )


def _of_destination(destination: Destination, now: float) -> ConcernKind | None:
    if destination.failing_since is not None and now - destination.failing_since > UNREACHABLE_AFTER_S:
        return ConcernKind.UNREACHABLE
    return ConcernKind.OLD_DELIVERY if now - destination.oldest_at > OLDEST_AFTER_S else None


def _of_process(beat: Heartbeat, now: float) -> Iterator[Concern]:
    for name, sweep in beat.late(now):
        yield Concern(
            kind=ConcernKind.LATE_SWEEP,
            about=beat.name,
            text=f"{name} last ran {span(sweep.age_s)} ago and should run every {sweep.every_s:g} s",
            fix="read the log of `mediqa-node serve`, then restart it",
        )
    n_open, at_most = beat.n_associations, beat.max_associations
    if n_open is not None and at_most is not None and n_open >= at_most:
        yield Concern(
            kind=ConcernKind.RECEIVER_FULL,
            about=beat.name,
            text=f"{n_open} of {at_most} associations are open: further ones are rejected",
            fix="look for senders that leave associations open, or raise `receiver.max_associations`",
        )
