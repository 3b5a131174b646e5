"""One process of a node, from its start to SIGTERM: receiver, worker, courier, forwarder or web."""

import contextlib
import os
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import structlog

from mediqa_node.composition import listening
from mediqa_node.composition.checkpoints import open_at, open_stored, place_of
from mediqa_node.composition.resources import forward_plan, nightly_export, node_context, open_spool, slow_actions
from mediqa_node.config import Settings
from mediqa_node.domain.cluster import TAKE_OVER_EVERY_S
from mediqa_node.domain.errors import CheckpointRefused, ConfigurationError, MediqaError, StorageFailed
from mediqa_node.logs import log_uncaught
from mediqa_node.network.listeners import take_over
from mediqa_node.storage.database import Database
from mediqa_node.system.lock import Locked, locked
from mediqa_node.system.watchdog import Watchdog

if TYPE_CHECKING:
    from mediqa_node.domain.promotion import Weights
    from mediqa_node.network.receiver import Receiver

from mediqa_node.service.membership import Process, joined
from mediqa_node.service.roles import (
    DRAIN_S,
    FORWARDER,
    REFUSED,
    RESTART,
    WEB,
    number_of,
    running_processes,
    stop_at_a_signal,
    tell,
)

log = structlog.get_logger("serve")

_SERIES_ON_A_GPU = 4
_SWITCH_S = 0.001
"""How long a thread of the receiver computes while others wait. Python's 5 ms make C-ECHO wait for many senders."""
_LOOK_EVERY_S = 0.5
_LISTEN_AGAIN_S = 30.0
_TRIM_EVERY_S = 30.0
_IMPORTED_BEFORE = {
    "courier": (
        "mediqa_node.pipeline.flow",
        "mediqa_node.pipeline.report",
        "mediqa_node.pipeline.sweeps",
        "mediqa_node.pipeline.take_over",
    ),
    FORWARDER: ("mediqa_node.pipeline.forward.forwarder",),
}
"""What a process that stands by has loaded by the time that it has to take over: importing takes seconds."""
_SHADOW_S = 120.0
"""How long a worker keeps the others from scoring in shadow after it has begun with a series."""


def run_role(role: str, settings: Settings) -> int:
    """Run one process until SIGTERM, or until its supervisor is gone."""
    log_uncaught()
    stop = threading.Event()
    stop_at_a_signal(stop)
    threading.Thread(target=_watch_supervisor, args=(stop,), daemon=True).start()
    for module in _IMPORTED_BEFORE.get(role, ()):
        import_module(module)
    try:
        # its name is its identity in the durable engine, and must be unique
        with (
            locked(settings.lock_dir / f"{role}.lock", wait=lambda: not stop.wait(0.1)),
            joined(settings, role, stop) as process,
        ):
            return _RUN[process.member.kind](process) if process is not None else 0
    except Locked:
        return 0  # asked to stop while another process of this role still ran
    except (ConfigurationError, CheckpointRefused) as error:
        log.error("cannot start", role=role, reason=str(error))
        return REFUSED
    except MediqaError as error:  # such as a database that does not answer: the supervisor tries again
        log.error("process failed", role=role, reason=str(error))
        return 1


def _watch_supervisor(stop: threading.Event) -> None:
    """Stop when standard input closes: the supervisor holds its other end, and has died if it does."""
    with contextlib.suppress(OSError):
        while os.read(0, 1):  # not sys.stdin: its lock would be held at exit
            pass
    stop.set()


def _receiver(process: Process) -> int:
    from mediqa_node.composition.receiver_services import receiver_services
    from mediqa_node.decode.syntaxes import decodable_transfer_syntaxes
    from mediqa_node.pipeline.flow import receive
    from mediqa_node.pipeline.recovery import recover

    sys.setswitchinterval(_SWITCH_S)
    handed_over = take_over()
    settings, database, stop = process.settings, process.database, process.stop
    spool, plan = open_spool(settings), forward_plan(settings)
    owner = process.member.host_id
    recover(database, spool, now=time.time(), plan=plan, owner=owner, alive_at=process.alive_at)
    receiver, writer = receive(
        database,
        spool,
        settings.receiver,
        ae_title=settings.node.ae_title,
        also_called=settings.node.ae_titles,
        listeners=listening.listeners(settings, handed_over),
        transfer_syntaxes=decodable_transfer_syntaxes(),
        plan=plan,
        services=receiver_services(settings, database, stop.is_set),
    )
    process.beat.associations = receiver.occupancy
    threading.Thread(target=_serve, args=(receiver, stop), name="accept", daemon=True).start()
    process.show()
    where = " and ".join(map(str, receiver.listeners))
    log.info("receiving", ae_title=settings.node.ae_title, on=where)
    tell(f"listening on {where} as {settings.node.ae_title}")
    stop.wait()
    receiver.stop(within_s=DRAIN_S - 5)
    writer.stop()
    return 0


def _serve(receiver: "Receiver", stop: threading.Event) -> None:
    """Accept connections; whatever ends that ends the process, and its supervisor starts another."""
    try:
        receiver.serve()
    finally:
        stop.set()


def _worker(process: Process) -> int:
    from mediqa_node.model.execution import for_worker
    from mediqa_node.pipeline import durable, flow, sweeps
    from mediqa_node.pipeline.checkpoints import shadow
    from mediqa_node.pipeline.checks import constancy
    from mediqa_node.pipeline.preparation import Preparation

    settings, database, stop = process.settings, process.database, process.stop
    settings = settings.model_copy(update={"model": for_worker(settings.model, number_of(process.member.role) - 1)})
    loaded = _promoted(database)  # read once: a promotion from here on is noticed below
    assessor = open_at(settings, place_of(settings, loaded), reporting=True)
    node = replace(node_context(settings, database, assessor=assessor), pulse=process.pulse)
    checkpoint = assessor.scorer.checkpoint
    watchdog = Watchdog(settings.model.hangs_after_s)
    with watchdog.watched():
        constancy.check_if_due(node, at_start=True)  # before the first job: no unproven result leaves
    preparation = Preparation(node)
    node = replace(node, preparation=preparation)
    on_gpu = bool(assessor.scorer.hardware)
    gate = durable.launch(
        database,
        executor_id=process.member.name,
        score=watchdog.watched()(partial(flow.assess, node)),
        backscore=watchdog.watched()(partial(flow.backscore, node)),
        scores_at_once=_SERIES_ON_A_GPU if on_gpu else 1,
    )
    sweeps.worker_loop(node, stop).start()
    process.show()
    log.info("scoring", checkpoint=checkpoint.name, trained=checkpoint.trained, weights=checkpoint.sha256[:16])
    tell(f"model ready: {checkpoint.name}, {checkpoint.execution}")
    beside = shadow.Shadow(
        node,
        partial(open_stored, settings),
        # one of all workers
        lambda: process.leases.take("shadow", for_s=_SHADOW_S) is not None,
    )
    threading.Thread(target=shadow.run, args=(beside, stop), name="shadow", daemon=True).start()
    threading.Thread(target=preparation.run, name="preparation", daemon=True).start()
    status = 0
    while not stop.wait(_LOOK_EVERY_S):
        if sweeps.keep_pace(node, gate):
            preparation.wake()
        if _is_replaced(database, loaded):
            log.info("another checkpoint is active, the worker restarts")
            status = RESTART
            stop.set()
    preparation.stop()
    durable.shut_down(within_s=int(DRAIN_S - 10))
    return status


def _promoted(database: Database) -> "Weights | None":
    from mediqa_node.storage import promotions

    with database.read() as connection:
        return promotions.standing(connection).current


def _is_replaced(database: Database, loaded: "Weights | None") -> bool:
    """Whether another checkpoint is active now; False while the database does not answer."""
    try:
        return _promoted(database) != loaded
    except StorageFailed as error:
        log.warning("promotions not read", reason=str(error), hourly_for=None)
        return False


def _courier(process: Process) -> int:
    from mediqa_node.pipeline import durable, flow, sweeps
    from mediqa_node.pipeline.clock_watch import ClockWatch
    from mediqa_node.pipeline.take_over import TakeOver

    settings, database, stop = process.settings, process.database, process.stop
    node = replace(node_context(settings, database), pulse=process.pulse)
    # under the name of the lease: who takes it finds the deliveries that its predecessor has begun
    gate = durable.launch(database, executor_id=process.member.lease, deliver=partial(flow.deliver, node))
    nightly = nightly_export(settings, database)
    jobs = durable.DurableJobs(database)
    scheduler = sweeps.schedule(node, jobs, stop.is_set, nightly)
    scheduler.start()
    watch = ClockWatch(node, partial(sweeps.rearm, scheduler))
    rounds = threading.Thread(target=sweeps.Rounds(node, gate, stop, watch).run, name="rounds", daemon=True)
    threads = [rounds, *sweeps.courier_loops(node, jobs, stop, slow_actions(settings, database, stop.is_set))]
    if not database.is_sqlite:
        dead = TakeOver(node, jobs, process.leases, forward_plan(settings))
        threads.append(sweeps.Loop(node.pulse, "take over", TAKE_OVER_EVERY_S, dead.run, stop))
    for thread in threads:
        thread.start()
    process.show()
    log.info("delivering", peers=[peer.name for peer in node.peers])
    stop.wait()
    scheduler.shutdown(wait=True)
    for thread in threads:
        thread.join()
    durable.shut_down(within_s=int(DRAIN_S - 10))
    return 0


def _forwarder(process: Process) -> int:
    from mediqa_node.composition.resources import forward_context
    from mediqa_node.pipeline.forward.forwarder import Forwarder

    context = replace(forward_context(process.settings, process.database), pulse=process.pulse)
    process.show()
    log.info("forwarding", destinations=sorted(context.destinations))
    Forwarder(context, process.stop).run()
    return 0


def _web(process: Process) -> int:
    from mediqa_node.composition.resources import web_context
    from mediqa_node.system.memory import give_back_freed_memory, share_memory_between_threads
    from mediqa_node.web.app import create_app
    from mediqa_node.web.server import CannotServe, Server

    share_memory_between_threads()
    settings, database, stop = process.settings, process.database, process.stop
    context = web_context(settings, database, partial(running_processes, settings))
    web = settings.web
    server = None
    while server is None and not stop.is_set():
        try:
            server = Server(create_app(context), host=web.host, port=web.port, proxies=web.proxies)
            port = server.start()
        except CannotServe as error:  # another program, or another node; this one receives and scores all the same
            server = None
            log.warning("no workbench", reason=str(error), hourly_for="web")
            stop.wait(_LISTEN_AGAIN_S)
    if server is None:
        return 0
    if web.is_in_plain_text:
        log.warning(
            "passwords cross the network in plain text", host=web.host, fix="put TLS in front, web.secure: true"
        )
    log.info("showing", host=web.host, port=port)
    tell(f"workbench at {'https' if web.secure else 'http'}://{web.host}:{port}/")
    while not stop.wait(_TRIM_EVERY_S):
        database.close()  # each connection that nobody uses keeps megabytes of pages
        give_back_freed_memory()
    server.stop()
    return 0


_RUN = {"receiver": _receiver, "worker": _worker, "courier": _courier, FORWARDER: _forwarder, WEB: _web}
