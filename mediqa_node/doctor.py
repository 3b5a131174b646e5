"""`mediqa-node doctor`: the state of an installation, one line for each finding.

Nothing is changed, and nothing has to work: each check runs by itself, and an error in a check is its finding.
Something missing that the node does not need is a note, not a problem.
"""

import os
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from mediqa_node import __version__, config, service
from mediqa_node.composition import certificates, checkpoints, resources
from mediqa_node.config import Settings
from mediqa_node.decode.syntaxes import decodable_transfer_syntaxes, missing_decoders
from mediqa_node.domain.errors import MediqaError
from mediqa_node.domain.health import STUCK_AFTER_S, of_tls
from mediqa_node.domain.returns import obstacle
from mediqa_node.pipeline.checks.constancy import processor
from mediqa_node.storage.database import Connection

OK, NOTE, PROBLEM = "ok", "note", "problem"
PACKAGES = (
    "torch", "torchvision", "timm", "numpy", "pydicom", "pynetdicom", "highdicom", "dbos", "SQLAlchemy",
)  # fmt: skip
CHECKED_WITHIN_S = 2 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding, shown as one line.

    Attributes:
        mark: `ok`, `note` or `problem`.
        fix: how to solve a problem, or None.
        details: for machines.
    """

    name: str
    mark: str
    text: str
    fix: str | None = None
    details: tuple[str, ...] = ()


Question = Callable[[], Iterator[Finding]]


def examine(path: Path | None) -> list[Finding]:
    """Return all findings; `path` is the configuration file, None for the usual place."""
    findings: list[Finding] = []
    installed = (("versions", versions), ("size", size), ("torch", torch_and_devices), ("decoders", decoders))
    for name, question in installed:
        findings += _asked(name, question)
    try:
        settings = config.load(config.find(path))
    except MediqaError as error:
        return [*findings, Finding(name="settings", mark=PROBLEM, text=str(error), fix="correct that file")]
    for name, about in (
        ("settings", configuration),
        ("reports", reports),
        ("TLS", tls),
        ("model", model),
        ("data", data_folder),
        ("database", database),
        ("workbench", workbench),
        ("roles", roles),
        ("queues", queues),
    ):
        findings += _asked(name, partial(about, settings))
    return findings


def _asked(name: str, question: Question) -> list[Finding]:
    """Return the findings of a check, or the error that ended it."""
    found: list[Finding] = []
    try:
        found.extend(question())
    except Exception as error:
        found.append(Finding(name=name, mark=PROBLEM, text=f"{type(error).__name__}: {error}"))
    return found


# ── the installation ─────────────────────────────────────────────────────────


def versions() -> Iterator[Finding]:
    """Find the versions of the packages."""
    yield Finding(name="mediqa-node", mark=OK, text=f"{__version__}, Python {platform.python_version()}")
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        fix = f"pip install {' '.join(missing)}"
        yield Finding(name="packages", mark=PROBLEM, text=f"not installed: {', '.join(missing)}", fix=fix)
    yield Finding(name="packages", mark=OK, text=", ".join(found), details=tuple(found))


def size() -> Iterator[Finding]:
    """Add up the size of the installed packages, and the memory and start-up time of a process with the model."""
    sizes: dict[str, int] = {}
    for one in distributions():
        name = str(one.metadata["Name"]).lower()
        paths = (Path(str(file.locate())) for file in one.files or ())
        sizes[name] = sum(path.stat().st_size for path in paths if path.is_file())  # RECORD has no size of bytecode
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:3]
    text = f"{sum(sizes.values()) / 1e9:.1f} GB in this environment, most in " + ", ".join(
        f"{name} ({n_bytes / 1e9:.1f} GB)" for name, n_bytes in largest
    )
    yield Finding(name="size", mark=OK, text=text)


def torch_and_devices() -> Iterator[Finding]:
    """Check that torch works, and find the devices it can use."""
    try:
        from mediqa_node.model.hardware import torch_facts

        facts = torch_facts()
    except (ImportError, OSError, RuntimeError) as error:
        yield Finding(name="torch", mark=PROBLEM, text=f"does not start: {error}", fix="install torch again")
        return
    fault = facts.torchvision_fault
    yield Finding(
        name="torchvision",
        mark=PROBLEM if fault else OK,
        text=f"does not fit torch: {fault}" if fault else "fits torch: one of its operators was called",
        fix="install torch and torchvision from one index, e.g. both with --index-url of download.pytorch.org"
        if fault
        else None,
    )
    cores, quota = len(os.sched_getaffinity(0)), _cpu_quota()
    matrix = "AMX" if facts.amx else "no AMX (bf16 needs a GPU)"
    text = f"{processor()}, {cores} cores usable, torch threads {facts.threads}; {facts.capability}, {matrix}"
    yield Finding(name="processor", mark=OK, text=text)
    if quota is not None and quota < cores:
        text = f"this container may use {quota:g} of {cores} cores; set `model.threads: {max(1, int(quota))}`"
        yield Finding(name="quota", mark=NOTE, text=text)
    for device in facts.accelerators:
        memory_gib = device.memory_bytes / 1024**3
        text = f"cuda:{device.index} {device.name}, {memory_gib:.0f} GiB, torch for {facts.built_for}"
        yield Finding(name="accelerator", mark=OK, text=text)
    if not facts.accelerators:
        text = f"no CUDA device (torch for {facts.built_for}): the model runs on the processor"
        yield Finding(name="accelerator", mark=NOTE, text=text)


def _cpu_quota(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    """Return the number of cores that the control group (v2) grants, or None."""
    try:
        quota, period = file.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def decoders() -> Iterator[Finding]:
    """Find the transfer syntaxes that can be decoded; exactly these are accepted from scanners."""
    from pydicom.uid import UID

    readable = decodable_transfer_syntaxes()
    names = tuple(f"{uid} {UID(uid).name}" for uid in readable)
    kinds = dict.fromkeys(_kind(UID(uid).name) for uid in readable)
    text = f"{len(readable)} transfer syntaxes: {', '.join(kinds)}"
    yield Finding(name="decoders", mark=OK, text=text, details=names)
    for package, syntaxes in missing_decoders().items():
        text = f"{package} is missing, which decodes {', '.join(UID(uid).name for uid in syntaxes)}"
        yield Finding(name="decoders", mark=PROBLEM, text=text, fix=f"pip install {package}")


def _kind(name: str) -> str:
    """Return `JPEG 2000` for `JPEG 2000 Image Compression (Lossless Only)`."""
    known = ("HTJ2K", "High-Throughput", "JPEG 2000", "JPEG-LS", "JPEG", "RLE", "Deflated", "Big Endian")
    kind = next((word for word in known if word in name), "native")
    return "HTJ2K" if kind == "High-Throughput" else kind


# ── the node ─────────────────────────────────────────────────────────────────


def configuration(settings: Settings) -> Iterator[Finding]:
    """Name the configuration file, and check that everything it names can be read."""
    if settings.file is None:
        text = "no file, the defaults are used; `mediqa-node config show > node.yaml` writes one"
        yield Finding(name="settings", mark=NOTE, text=text)
    try:
        checkpoints.prompt_rules(settings)
        resources.time_zone(settings)
        checkpoints.check_checkpoint(settings)
    except MediqaError as error:
        yield Finding(name="settings", mark=PROBLEM, text=str(error), fix="correct that file")
        return
    if settings.file is not None:
        yield Finding(name="settings", mark=OK, text=f"{settings.file}: no errors")


def reports(settings: Settings) -> Iterator[Finding]:
    """Check that a report can be sent with this configuration."""
    why_not = obstacle(settings.returns, settings.peers_of_settings(), settings.receiver)
    if why_not is None:
        names = ", ".join(dict.fromkeys(name for rule in settings.returns for name in rule.to))
        yield Finding(name="reports", mark=OK, text=f"go to {names}; `mediqa-node config check` shows the rules")
    elif settings.file is None:
        yield Finding(name="reports", mark=NOTE, text=f"none will be sent: {why_not}")
    else:
        yield Finding(name="reports", mark=PROBLEM, text="none will be sent", fix=why_not)


def tls(settings: Settings) -> Iterator[Finding]:
    """Find files of TLS that cannot be used, expire soon, or can be read by others."""
    files = certificates.tls_files(settings)
    found = list(of_tls(files, time.time()))
    for one in found:
        yield Finding(name="TLS", mark=PROBLEM, text=f"{one.about}: {one.text}", fix=one.fix)
    if any(file.problem for file in files):
        return
    for text in certificates.warnings(settings):
        yield Finding(name="TLS", mark=NOTE, text=text)
    if files and not found:
        yield Finding(name="TLS", mark=OK, text="every file can be used, and none expires within 30 days")


def model(settings: Settings) -> Iterator[Finding]:
    """Load the active checkpoint as the worker does, which verifies its digests; measure time and memory."""
    choice, started = settings.model, time.monotonic()
    try:
        checkpoint = checkpoints.open_active(settings, reporting=True).scorer.checkpoint
    except Exception as error:  # torchvision may die anywhere in here
        text = f"checkpoint {choice.checkpoint!r} cannot be loaded: {type(error).__name__}: {error}"
        fix = "name another in `model.checkpoint`, `mediqa-node model rollback` a promotion, or install again"
        yield Finding(name="model", mark=PROBLEM, text=text, fix=fix)
        return
    memory_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    text = f"{checkpoint.name} ({checkpoint.size}), {checkpoint.execution}, digests of weights and card verified"
    text += f"; loaded in {time.monotonic() - started:.1f} s, {memory_gb:.1f} GB of memory"
    yield Finding(name="model", mark=OK, text=text, details=(checkpoint.sha256,))
    if (known := checkpoints.standing(settings)).current is not None:
        text = f"active: {checkpoints.sentence(settings, known)}"
        yield Finding(name="model", mark=OK, text=text)
    if not checkpoint.trained:
        consequence = "reported with a warning" if choice.allow_untrained else "withheld"
        text = f"these weights were never trained: their scores mean nothing and are {consequence}"
        yield Finding(name="model", mark=NOTE, text=text)


def data_folder(settings: Settings) -> Iterator[Finding]:
    """Check that the data folder has room and can be written."""
    folder = settings.data_dir
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(there).free
    text = f"{folder}{'' if there == folder else ' (does not exist yet)'}: {free / 1e9:,.0f} GB free"
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        text = f"{there} cannot be written to: {error.strerror}"
        yield Finding(name="data", mark=PROBLEM, text=text, fix="make the user that runs the node its owner")
        return
    if folder.is_dir() and folder.stat().st_mode & 0o007:
        note = f"{folder} is open to every user of this machine and holds patient identifiers; `chmod o= {folder}`"
        yield Finding(name="data", mark=NOTE, text=note)
    low = settings.retention.low_water_bytes
    if free < low:
        text += f", less than `retention.low_water_bytes` ({low / 1e9:,.0f} GB): nothing is received"
        yield Finding(name="data", mark=PROBLEM, text=text, fix="free space, or lower `retention.days`")
        return
    yield Finding(name="data", mark=OK, text=f"{text}, writable")


def database(settings: Settings) -> Iterator[Finding]:
    """Check that the database answers and is up to date, and show the last constancy check."""
    from mediqa_node.storage.migrate import mismatch

    if settings.missing_database is not None:
        text = "none yet; `mediqa-node serve` creates it"
        yield Finding(name="database", mark=NOTE, text=text)
        return
    opened = resources.open_database(settings)
    try:
        if (why := mismatch(opened)) is not None:
            yield Finding(name="database", mark=PROBLEM, text=f"answers, but {why}")
            return
        kind = "SQLite" if opened.is_sqlite else "PostgreSQL"
        yield Finding(name="database", mark=OK, text=f"{kind}, answers, tables up to date")
        with opened.read() as connection:
            yield _constancy(connection)
    except MediqaError as error:
        fix = "start the database server, or correct `database.url`"
        yield Finding(name="database", mark=PROBLEM, text=str(error), fix=fix)
    finally:
        opened.close()


def _constancy(connection: Connection) -> Finding:
    from mediqa_node.storage import constancy_checks

    last = constancy_checks.standing(connection)
    if last is None:
        return Finding(name="constancy", mark=NOTE, text="never checked; `mediqa-node constancy` checks")
    hours = (time.time() - last.checked_at) / 3600
    text = f"{hours:.0f} h ago, mediqa-node {last.identity.software_version}, {last.identity.execution}"
    if last.withholds:
        text = f"failed {text}: {last.finding()}; reports are withheld"
        return Finding(name="constancy", mark=PROBLEM, text=text, fix=last.advice())
    if hours * 3600 > CHECKED_WITHIN_S:
        return Finding(name="constancy", mark=NOTE, text=f"good {text}: the worker checks every day while it runs")
    how = "accepted by a person" if not last.passed or last.as_acknowledged else "good"
    return Finding(name="constancy", mark=OK, text=f"{how} {text}")


def workbench(settings: Settings) -> Iterator[Finding]:
    """Find whether this node serves pages."""
    web = settings.web
    if not web.enabled:
        yield Finding(name="workbench", mark=NOTE, text="off: `web.enabled` is false")
    elif missing := service.missing_web_packages():
        text = f"no pages; not installed: {', '.join(missing)}"
        yield Finding(name="workbench", mark=NOTE, text=text, fix=service.WEB_FIX)
    else:
        yield Finding(name="workbench", mark=OK, text=f"packages installed; pages at {web.host}:{web.port}")


def roles(settings: Settings) -> Iterator[Finding]:
    """Find the processes of the node that run on this machine."""
    running = service.running_roles(settings)
    missing = [role for role in service.needed_roles(settings) if role not in running]
    if not running:
        yield Finding(name="roles", mark=NOTE, text="the node is not running here; `mediqa-node serve` starts it")
    elif missing:
        text = f"running: {', '.join(running)}; not running: {', '.join(missing)}"
        yield Finding(name="roles", mark=PROBLEM, text=text, fix="read the log of `mediqa-node serve`, then restart it")
    else:
        yield Finding(name="roles", mark=OK, text=f"running: {', '.join(running)}")


def queues(settings: Settings) -> Iterator[Finding]:
    """Find what `status` finds: destinations that take no reports, late sweeps, series that do not move on."""
    from mediqa_node.storage import health
    from mediqa_node.storage.migrate import mismatch

    if settings.missing_database is not None:
        return
    opened = resources.open_database(settings)
    try:
        if mismatch(opened) is not None:
            return
        now = time.time()
        with opened.read() as connection:
            found = health.load(
                connection,
                running=service.running_processes(settings),
                host_id=settings.node.host_id,
                has_room=True,  # else found by `data_folder`
                now=now,
                stuck_before=now - settings.completion.forced_after_s - STUCK_AFTER_S,
                no_images=resources.no_images(settings, connection),
            )
    except MediqaError:
        return  # found by `database`
    finally:
        opened.close()
    for one in found.concerns:
        yield Finding(name="queues", mark=PROBLEM, text=f"{one.about}: {one.text}", fix=one.fix)
    if not found.concerns:
        waiting = ", ".join(f"{one.name}: {one.sentence(now)}" for one in found.destinations)
        yield Finding(name="queues", mark=OK, text=waiting or "no report waits for a destination")
