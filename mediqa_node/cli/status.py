"""`mediqa-node status`: what the node is doing and what needs attention, in a bounded number of lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from mediqa_node.cli import app
from mediqa_node.cli.clock import ADVICE, is_paused, step_in_words
from mediqa_node.cli.common import open_node
from mediqa_node.cli.options import Json
from mediqa_node.cli.present import ago, as_json, count, date, fact, held_step, size
from mediqa_node.domain.errors import CheckpointRefused, ConfigurationError
from mediqa_node.domain.health import OLDEST_AFTER_S, STUCK_AFTER_S
from mediqa_node.domain.series import HELD, DeliveryState, ReasonCode, SeriesState

if TYPE_CHECKING:
    from mediqa_node.config import Settings
    from mediqa_node.domain.backscore import BackscoreSet
    from mediqa_node.domain.constancy import Check
    from mediqa_node.domain.health import Concern, Destination, Heartbeat
    from mediqa_node.domain.promotion import Standing, Weights
    from mediqa_node.domain.self_check import SelfCheck
    from mediqa_node.pipeline.export.nightly import Outcome
    from mediqa_node.storage.clock import ClockRow
    from mediqa_node.storage.database import Connection, Database
    from mediqa_node.storage.health import Health
    from mediqa_node.storage.index import SeriesRow
    from mediqa_node.storage.outbox import DeliveryRow
    from mediqa_node.storage.overview import Dispute, Facts
    from mediqa_node.storage.retractions import RetractionRow

SHOWN = 10
"""Items of one kind that are printed; the others are counted."""
EITHER = "--keep-first, or --keep-last: shows what it would mean"
_LATELY_S = 86_400.0

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the database, the spool and the locks of the processes show."""

    now: float
    facts: Facts
    waiting: list[DeliveryRow]
    held: list[DeliveryRow]
    stopped: list[SeriesRow]
    disputes: list[Dispute]
    undecided: list[str]
    retractions: list[RetractionRow]
    backscored: list[BackscoreSet]
    ambiguous: dict[str, list[str]]
    clock: ClockRow | None
    destinations: list[Destination]
    heartbeats: list[Heartbeat]
    concerns: list[Concern]
    checked: Check | None
    exported: Outcome | None
    weights: Standing
    weights_in_words: str
    active: Weights | None
    ordered: SelfCheck | None
    running: list[str]
    missing: list[str]
    has_room: bool
    free_bytes: int | None

    @property
    def drifted(self) -> Check | None:
        return self.checked if self.checked is not None and self.checked.withholds else None

    @property
    def is_outdated(self) -> bool:
        """Whether the last self-check compared scores of another checkpoint than the active one."""
        return self.ordered is not None and not self.ordered.weights.same_as(self.active)

    @property
    def is_paused(self) -> bool:
        return self.clock is not None and is_paused(self.clock, self.now)

    @property
    def needs_a_person(self) -> bool:
        not_exported = self.exported is not None and self.exported.problem
        held = self.held or self.stopped or self.disputes or self.ambiguous or self.is_paused
        held = held or any(row.state in HELD or self.now - row.created_at > OLDEST_AFTER_S for row in self.retractions)
        return bool(held or self.missing or self.drifted or not_exported or self.concerns)


@app.command()
def status(context: typer.Context, json: Json = False) -> None:
    """Show what the node is doing and what needs attention.

    The exit status is 1 if something needs attention.
    """
    with open_node(context) as (settings, database):
        found = _look(settings, database)
    if json:
        as_json(_as_dict(found))
    else:
        _print(found, settings)
    sys.exit(found.needs_a_person)


def _look(settings: Settings, database: Database) -> _Found:
    from mediqa_node import service
    from mediqa_node.composition import checkpoints, resources
    from mediqa_node.pipeline.sources import ambiguous
    from mediqa_node.storage import (
        backscores,
        clock,
        constancy_checks,
        index,
        outbox,
        overview,
        promotions,
        retractions,
        self_checks,
    )

    now, running = time.time(), service.running_roles(settings)
    with database.read() as connection:
        no_images = resources.no_images(settings, connection)
        spool = None if no_images else resources.open_spool(settings)  # which makes the folder
        has_room = spool is not None and spool.has_room()
        found = _health(settings, connection, has_room=has_room or spool is None, no_images=no_images, now=now)
        decided = promotions.standing(connection)
        stopped = index.series_in(connection, SeriesState.PARKED, SeriesState.WITHHELD)
        return _Found(
            now=now,
            facts=overview.facts(connection),
            waiting=outbox.deliveries_in(connection, DeliveryState.WAITING),
            held=outbox.deliveries_in(connection, *HELD),
            stopped=stopped,
            disputes=overview.disputes(connection),
            undecided=_undecided(connection, stopped),
            retractions=retractions.unfinished(connection),
            backscored=backscores.open_sets(connection),
            ambiguous={title: list(seen) for title, seen in ambiguous(settings.receiver, connection).items()},
            clock=clock.load(connection),
            destinations=found.destinations,
            heartbeats=found.heartbeats,
            concerns=found.concerns,
            checked=constancy_checks.standing(connection),
            exported=resources.last_export(settings),
            weights=decided,
            weights_in_words=checkpoints.sentence(settings, decided),
            active=_active(settings, decided),
            ordered=self_checks.last(connection),
            running=running,
            missing=[role for role in service.needed_roles(settings) if role not in running],
            has_room=has_room,
            free_bytes=spool.free_bytes() if spool is not None else None,
        )


def _health(settings: Settings, connection: Connection, *, has_room: bool, no_images: str, now: float) -> Health:
    from mediqa_node import service
    from mediqa_node.composition import certificates
    from mediqa_node.storage import health

    return health.load(
        connection,
        running=service.running_processes(settings),
        host_id=settings.node.host_id,
        has_room=has_room,
        now=now,
        stuck_before=now - settings.completion.forced_after_s - STUCK_AFTER_S,
        no_images=no_images,
        tls=certificates.tls_files(settings),
    )


def _active(settings: Settings, decided: Standing) -> Weights | None:
    """Return the active checkpoint; None if the configuration names one that is not pinned."""
    from mediqa_node.composition import checkpoints

    try:
        return checkpoints.active_weights(settings, decided)
    except (CheckpointRefused, ConfigurationError):
        return None


def _undecided(connection: Connection, stopped: Sequence[SeriesRow]) -> list[str]:
    """Return the series with images that name different patients, where a person has to say which is kept."""
    from mediqa_node.domain.series import CopyDecision, ReasonCode
    from mediqa_node.storage import copies

    return [
        row.series_instance_uid
        for row in stopped
        if row.reason is not None
        and row.reason.code is ReasonCode.IDENTITY
        and copies.proposal(connection, row.series_instance_uid, CopyDecision.KEEP_FIRST) is not None
    ]


def _as_dict(found: _Found) -> dict[str, Any]:
    return {
        **found.facts.as_dict(),
        "running": found.running,
        "has_room": found.has_room,
        "concerns": [asdict(one) for one in found.concerns],
        "destinations": [asdict(one) for one in found.destinations],
        "heartbeats": [asdict(one) for one in found.heartbeats],
        "held": [asdict(row) for row in found.held],
        "waiting": [asdict(row) for row in found.waiting],
        "stopped": [row.as_dict() for row in found.stopped],
        "disputes": [asdict(row) for row in found.disputes],
        "undecided": found.undecided,
        "retractions": [row.as_dict() for row in found.retractions],
        "backscore": [asdict(one) for one in found.backscored],
        "ambiguous_sources": found.ambiguous,
        "clock": {**asdict(found.clock), "paused": found.is_paused} if found.clock else None,
        "constancy": asdict(found.checked) if found.checked else None,
        "self_check": {**found.ordered.as_dict(), "outdated": found.is_outdated} if found.ordered else None,
        "export": asdict(found.exported) if found.exported else None,
        "weights": {"in_force": found.weights_in_words, **asdict(found.weights)},
    }


def _print(found: _Found, settings: Settings) -> None:
    facts, now = found.facts, found.now
    state = f"{', '.join(found.missing)} not running here" if found.missing else "running"
    arriving = f"{count(facts.n_receiving, 'series', 'series')} arriving, {count(facts.n_ready, 'assessment')}"
    kept = f"{count(facts.n_series, 'series', 'series')}, {count(facts.n_instances, 'instance')}, {size(facts.n_bytes)}"
    fact("node", f"{settings.address}: {state}")
    if settings.node.host_id is not None:
        _print_hosts(found, settings.node.host_id)
    _print_processes(found.concerns)
    if found.clock is not None and found.clock.stepped_at is not None and now - found.clock.stepped_at < _LATELY_S:
        fact("clock", step_in_words(found.clock, now))
        if found.is_paused:
            fact("", ADVICE)
    for title, addresses in found.ambiguous.items():
        fact("source", f"{title} was seen from {' and '.join(addresses)}: its corrections do not count any more")
        fact("", "→ admit one address only: `address` of its rule in `receiver.allowed`")
    fact("received", f"last {ago(now - facts.last_at)} from {facts.last_from}" if facts.last_at else "nothing yet")
    fact("kept", kept if found.free_bytes is None else f"{kept}; {size(found.free_bytes)} free")
    if not found.has_room and found.free_bytes is not None:
        fact("", f"→ nothing is received until {size(settings.retention.low_water_bytes)} are free")
    fact("waiting", f"{arriving}, {count(facts.n_waiting, 'delivery', 'deliveries')}")
    _print_destinations(found.destinations, found.concerns, now)
    for one in found.backscored:
        fact("back-score", f"{one.in_brief()}; mediqa-node backscore show {one.id}")
    fact("checkpoint", found.weights_in_words)
    fact("done", ", ".join(f"{n:,} {state.lower()}" for state, n in facts.ended) or "nothing yet")
    _print_checks(found.exported, found.drifted, now)
    if found.ordered is not None:
        old = f"outdated, of {found.ordered.weights.label}: " if found.is_outdated else ""
        text = f"{date(found.ordered.checked_at)[:10]}: {old}{found.ordered.in_brief()}"
        fact("self-check", f"{text}; run `mediqa-node selfcheck`")
    _print_held(found.held, found.stopped, found.disputes, found.undecided)
    _print_first(found.retractions, _print_retraction, "reports to be taken back", "")


def _print_hosts(found: _Found, host_id: str) -> None:
    """Print the hosts of the node with the processes of each, this host first."""
    from mediqa_node.domain.cluster import Member
    from mediqa_node.domain.health import process_states

    names = [Member(host_id, role).name for role in found.running]
    hosts: dict[str, list[str]] = {}
    for name, state, _ in process_states(found.heartbeats, names, host_id, found.now):
        member = Member.named(name)
        where = {"runs": "", "stands by": " stands by", "stopped": " is not running"}[state]
        hosts.setdefault(member.host_id or "without host_id", []).append(f"{member.role}{where}")
    for host, processes in hosts.items():
        fact("host" if host == host_id else "", f"{host}{' (this one)' * (host == host_id)}: {', '.join(processes)}")


def _print_processes(look: Sequence[Concern]) -> None:
    """Print late sweeps, a full receiver, series that do not move on, a lost folder, and what is wrong with TLS."""
    from mediqa_node.domain.health import ConcernKind

    names = {
        ConcernKind.LATE_SWEEP: "late",
        ConcernKind.RECEIVER_FULL: "full",
        ConcernKind.STUCK_SERIES: "stuck",
        ConcernKind.NO_IMAGES: "lost",
        ConcernKind.FORWARD_HELD: "forwards",
        ConcernKind.FORWARD_MISSING: "gap",
        ConcernKind.TLS_FILES: "TLS",
        ConcernKind.NOT_COMMITTED: "unconfirmed",
    }
    for concern in look:
        if concern.kind in names:
            fact(names[concern.kind], f"{concern.about}: {concern.text}")
            fact("", f"→ {concern.fix}")


def _print_destinations(destinations: Sequence[Destination], look: Sequence[Concern], now: float) -> None:
    """Print what waits for each destination, and the next step where a person should look."""
    from mediqa_node.domain.health import ConcernKind

    kinds = (ConcernKind.UNREACHABLE, ConcernKind.OLD_DELIVERY)
    fixes = {concern.about: concern.fix for concern in look if concern.kind in kinds}
    for destination in destinations:
        fact("", f"{destination.name}: {destination.sentence(now)}")
        if destination.name in fixes:
            fact("", f"→ {fixes[destination.name]}")


def _print_checks(exported: Outcome | None, drifted: Check | None, now: float) -> None:
    """Print the last nightly export, and a constancy check that withholds results."""
    if exported is not None:
        series = f"{count(exported.n_series, 'series', 'series')} to {exported.folder}"
        fact("exported", f"{ago(now - exported.at)}: {exported.problem or series}")
    if drifted:
        fact("constancy", f"failed {ago(now - drifted.checked_at)}: {drifted.finding()}")
        fact("", f"→ {drifted.advice()}")


def _print_retraction(row: RetractionRow) -> None:
    """Print a report that stands at a destination and must not."""
    text = f"report of series {row.series_instance_uid} at {row.destination}, to be taken back"
    why = f": {row.message}" if row.message else ""
    fact("retraction", f"{text} ({row.reason.replace('_', ' ')}){why}")
    if row.state in HELD:
        fact("", f"→ mediqa-node echo {row.destination}, then mediqa-node retry {row.series_instance_uid}")
        fact("", f"→ or remove it there by hand, then mediqa-node retry {row.series_instance_uid} --removed --by NAME")


def _print_held(
    held: list[DeliveryRow], stopped: list[SeriesRow], disputes: list[Dispute], undecided: list[str]
) -> None:
    """Print what needs attention, each with its next step."""
    from mediqa_node.domain.series import UNPROVEN

    disputed = {dispute.series_instance_uid for dispute in disputes}
    shown = disputed | {delivery.series_instance_uid for delivery in held}
    unproven = [row for row in stopped if row.reason and row.reason.code in UNPROVEN]
    rest = [row for row in stopped if row.series_instance_uid not in shown and row not in unproven]
    for state in dict.fromkeys(delivery.state for delivery in held):
        some = [delivery for delivery in held if delivery.state == state]
        _print_first(some, partial(_print_delivery, disputed), f"{state} deliveries", state)
    _print_unproven(unproven)
    for name in dict.fromkeys(row.state.lower() for row in rest):
        _print_first(
            [row for row in rest if row.state.lower() == name],
            partial(_print_series, undecided),
            f"{name} series",
            name,
        )
    _print_first(disputes, _print_dispute, "series with differing copies", "withheld")


def _print_first(found: Sequence[_Item], show: Callable[[_Item], None], what: str, state: str) -> None:
    """Print the first items, and how many more there are and where."""
    for one in found[:SHOWN]:
        show(one)
    if len(found) > SHOWN:
        where = f"; mediqa-node series --state {state}" if state else "; mediqa-node status --json"
        fact("", f"{len(found) - SHOWN:,} more {what}{where}")


def _print_delivery(disputed: set[str], delivery: DeliveryRow) -> None:
    fact(delivery.state, f"delivery {delivery.id} to {delivery.destination}: {delivery.message}")
    if delivery.series_instance_uid not in disputed:  # else its next step stands below
        fact("", f"→ {held_step(delivery.id, delivery.destination, delivery.state, delivery.reason_code)}")


def _print_series(undecided: Sequence[str], row: SeriesRow) -> None:
    fact(row.state.lower(), f"series {row.series_instance_uid}: {row.reason}")
    if row.series_instance_uid in undecided:
        fact("", f"→ mediqa-node retry {row.series_instance_uid} {EITHER}")
    elif row.reason is not None and row.reason.code == ReasonCode.NO_PATIENT_ID:
        fact("", "→ correct it at the scanner, or set `delivery.allow_empty_patient_id` and retry")
    else:
        fact("", f"→ mediqa-node retry {row.series_instance_uid}")


def _print_dispute(dispute: Dispute) -> None:
    what = "other pixels" if dispute.status == "conflict" else "another patient, study or accession"
    copies = count(dispute.n_copies, "further copy", "further copies")
    fact(dispute.status, f"series {dispute.series_instance_uid}: {copies} with {what}")
    fact("", f"→ mediqa-node retry {dispute.series_instance_uid} {EITHER}")


def _print_unproven(rows: list[SeriesRow]) -> None:
    """Print how many series wait for a good constancy check, instead of one line for each."""
    from mediqa_node.domain.series import ReasonCode

    unscored = [row for row in rows if row.reason and row.reason.code == ReasonCode.CONSTANCY_UNKNOWN]
    drifted = len(rows) - len(unscored)
    if unscored:
        fact("withheld", f"{count(len(unscored), 'series', 'series')}, because the reference set could not be scored")
        fact("", "→ they continue by themselves after a good check of the worker")
    if drifted:
        fact("withheld", f"{count(drifted, 'series', 'series')}, because the score has drifted")
        fact("", "→ mediqa-node retry, once a check is good or the drift is accepted")
