"""From settings to open resources: database, spool, device, exports, and the context of the stations.

Heavy packages are imported late, so that the receiver and the command line stay small.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import structlog

from mediqa_node import __version__
from mediqa_node.composition import certificates, checkpoints, data_folder
from mediqa_node.config import Settings
from mediqa_node.domain.cluster import Member
from mediqa_node.domain.errors import CheckpointRefused, ConfigurationError
from mediqa_node.storage import audit, calibrations
from mediqa_node.storage.database import Connection, Database
from mediqa_node.storage.spool import Spool

if TYPE_CHECKING:
    from mediqa_node.dicom.report.request import ReportDevice
    from mediqa_node.domain.commands import CommandAction
    from mediqa_node.pipeline.commands import Perform
    from mediqa_node.pipeline.export.nightly import NightlyExport, Outcome
    from mediqa_node.pipeline.export.select import ExportSource
    from mediqa_node.pipeline.forward.context import ForwardContext
    from mediqa_node.pipeline.forward.plan import ForwardPlan
    from mediqa_node.pipeline.node import NodeContext
    from mediqa_node.pipeline.pictures import PictureMaker
    from mediqa_node.pipeline.score import Assessor
    from mediqa_node.web.context import WebContext

log = structlog.get_logger("serve")

_EXPORT_KEY = "export.key"
DATABASE_MODE = 0o640
"""Permissions of the database, which holds patient identifiers: user and group only."""


def open_database(settings: Settings, member: Member | None = None) -> Database:
    """Open the database of this node; `receiver.durability` holds for what the receiver writes.

    Args:
        member: the process that does; None: a command.
    """
    if member is None:
        return Database(settings.database_url)
    syncs = _survives_power_loss(settings) or member.role != "receiver"
    return Database(settings.database_url, process=member.name, syncs=syncs)


def _survives_power_loss(settings: Settings) -> bool:
    return settings.receiver.durability == "power-loss"


def spool_folder(settings: Settings) -> Path:
    """Return the folder of the received images."""
    return settings.data_dir / "spool"


def no_images(settings: Settings, connection: Connection) -> str:
    """Return why received images cannot be read, as far as the folder and the last image show; "" if they can."""
    if audit.last_received_at(connection) is None:
        return ""
    folder, last = spool_folder(settings), audit.last_kept_path(connection)
    try:
        if not folder.is_dir():
            return f"{folder} is missing: no image can be received or read"
        if last is not None and not (folder / last).exists():
            return f"{folder} does not have the last image received, {last}"
    except OSError as error:
        return f"{folder} cannot be read: {error.strerror}"
    return ""


def open_spool(settings: Settings) -> Spool:
    """Open the spool of this node."""
    return Spool(
        spool_folder(settings),
        owner=settings.node.host_id,
        durable=_survives_power_loss(settings),
        low_water_bytes=settings.retention.low_water_bytes,
    )


def prepare(settings: Settings) -> None:
    """Bring both sets of tables up to date and see that data folder and database belong together.

    Called once, before any process of this host starts.

    Raises:
        ConfigurationError: they do not, or the tables are of another version.
    """
    from mediqa_node.pipeline.durable import DurableJobs, migrate
    from mediqa_node.storage.migrate import migrating, upgrade

    data_folder.make(settings)
    is_new = settings.missing_database is not None
    database = open_database(settings)
    with migrating(database):
        upgrade(database)
        migrate(database)
        data_folder.claim(settings, database)
        import_calibrations(settings, database)
    if database.is_sqlite:  # the only host: whatever was begun, nobody does it now
        DurableJobs(database).take_back()
    database.close()
    if is_new and (file := settings.data_dir / "node.db").is_file():
        file.chmod(DATABASE_MODE)  # SQLite gives its journal the same permissions


def import_calibrations(settings: Settings, database: Database) -> None:
    """Take the calibrations of the configuration over into the database, each id once; pages decide from then on."""
    if not settings.calibrations:
        return
    with database.write() as connection:
        new, kept = calibrations.import_once(connection, settings.calibrations, at=time.time())
    if new:
        log.info("calibrations of the configuration imported", ids=new)
    if kept:
        log.info("calibrations of the configuration are not looked at: the database has them", ids=kept)


def report_device(settings: Settings) -> "ReportDevice":
    """Return the device description for reports."""
    from mediqa_node.dicom.report.request import ReportDevice

    return ReportDevice(ae_title=settings.node.ae_title, software_version=__version__, **data_folder.identity(settings))


def time_zone(settings: Settings) -> tzinfo:
    """Return the site's time zone: configured, else the machine's."""
    if settings.node.time_zone:
        try:
            return ZoneInfo(settings.node.time_zone)
        except (KeyError, ValueError, OSError) as error:
            raise ConfigurationError(f"node.time_zone: {settings.node.time_zone!r} is no IANA time zone") from error
    from tzlocal import get_localzone

    return get_localzone()


def series_keys(settings: Settings) -> "Callable[[Iterable[str]], dict[str, str]] | None":
    """Return a function from UIDs to a map by export series key; None if nothing was exported yet."""
    from mediqa_node.dicom.deidentify.pseudonyms import KEY_BYTES, Pseudonyms
    from mediqa_node.exchange.folder import secret_of

    if not (file := settings.data_dir / _EXPORT_KEY).is_file():
        return None
    pseudonyms = Pseudonyms(secret_of(file, KEY_BYTES))
    return lambda uids: {pseudonyms.key("series", uid): uid for uid in uids}


def export_source(settings: Settings, database: Database) -> "ExportSource":
    """Return the sources of an export; the key of its pseudonyms is generated once and kept in the data folder."""
    from mediqa_node.dicom.deidentify.pseudonyms import KEY_BYTES, Pseudonyms
    from mediqa_node.exchange.folder import secret_of
    from mediqa_node.pipeline.export.select import ExportSource

    return ExportSource(
        database=database,
        spool=open_spool(settings),
        prompts=checkpoints.prompt_rules(settings),
        pseudonyms=Pseudonyms(secret_of(settings.data_dir / _EXPORT_KEY, KEY_BYTES)),
        spec=lambda: checkpoints.preprocess_spec(settings),
        software_version=__version__,
    )


def slow_actions(
    settings: Settings, database: Database, stopping: Callable[[], bool]
) -> "dict[CommandAction, Perform]":
    """Return the actions of pages that take long.

    Args:
        stopping: whether the process is about to end: an export or a decision breaks off.
    """
    from mediqa_node.composition.checkpoint_actions import CheckpointActions
    from mediqa_node.domain.commands import CommandAction
    from mediqa_node.pipeline.export.asked import AskedExports

    asked = AskedExports(
        source=lambda: export_source(settings, database), folder=settings.export_folder, stopping=stopping
    )
    decide = CheckpointActions(settings, stopping).decide
    decisions = (CommandAction.PROMOTE, CommandAction.ROLL_BACK, CommandAction.SHADOW, CommandAction.UNSHADOW)
    return {
        CommandAction.PREVIEW: asked.preview,
        CommandAction.EXPORT: asked.export,
        **dict.fromkeys(decisions, decide),
    }


def last_export(settings: Settings) -> "Outcome | None":
    """Return the last nightly export; without any, what exports need is not loaded, which takes a quarter second."""
    if not settings.export.nightly:
        return None
    from mediqa_node.pipeline.export.nightly import last_outcome

    return last_outcome(settings.export_folder)


def nightly_export(settings: Settings, database: Database) -> "NightlyExport | None":
    """Return the nightly export, or None if it is off."""
    if settings.export.nightly is None:
        return None
    from mediqa_node.pipeline.export.nightly import NightlyExport

    return NightlyExport(
        source=lambda: export_source(settings, database),
        rules=settings.export,
        folder=settings.export_folder,
        time_zone=time_zone(settings),
        clock=time.time,
    )


@dataclass(frozen=True, slots=True)
class PictureFactory:
    """Opens the maker of pictures in the process that it is called in; it survives pickling."""

    database_url: str
    spool: Path

    def __call__(self) -> "PictureMaker":
        """Return a maker over the node's images."""
        from mediqa_node.pipeline.pictures import PictureMaker

        return PictureMaker(Database(self.database_url), Spool(self.spool, durable=False))


def web_context(settings: Settings, database: Database, running: Callable[[], list[str]]) -> "WebContext":
    """Return the context of the workbench.

    Args:
        running: names of the node's processes that run.
    """
    from mediqa_node.composition.checkpoint_list import Listed, listed_briefly
    from mediqa_node.storage import promotions
    from mediqa_node.web.context import WebContext
    from mediqa_node.web.pictures import PictureProcess

    def known() -> tuple[str, list[Listed]]:
        with database.read() as connection:
            standing = promotions.standing(connection)
        try:
            return checkpoints.sentence(settings, standing), listed_briefly(settings, standing)
        except CheckpointRefused as error:  # a damaged folder; queues and peers are shown all the same
            return f"the checkpoints cannot be listed: {error}", []

    return WebContext(
        database=database,
        pictures=PictureProcess(PictureFactory(settings.database_url, spool_folder(settings))),
        title=settings.node.ae_title,
        software_version=__version__,
        data_dir=settings.data_dir,
        exports=settings.export_folder,
        peers=settings.peers_of_settings(),
        time_zone=time_zone(settings),
        secure=settings.web.secure,
        idle_s=60 * settings.web.idle_minutes,
        viewer=settings.web.viewer,
        host_id=settings.node.host_id,
        running=running,
        checkpoints=known,
        tls_files=partial(certificates.tls_files, settings),
        low_water_bytes=settings.retention.low_water_bytes,
        import_ratings=partial(import_ratings, database),
    )


def import_ratings(database: Database, content: bytes, *, by: str, at: float) -> tuple[int | None, tuple[str, ...]]:
    """Import a table of ratings as `mediqa-node annotations import` does; return its number, and problems."""
    from mediqa_node.exchange.rating_table import Layout
    from mediqa_node.pipeline.ratings import take_in

    found = take_in(database, content, Layout(), by=by, at=at)
    return found.kept.id if found.kept else None, tuple(f"row {one.row}: {one.text}" for one in found.problems)


def forward_plan(settings: Settings) -> "ForwardPlan | None":
    """Return the forward rules of the site, ready to be asked; None without any."""
    if not settings.forward:
        return None
    from mediqa_node.pipeline.forward.plan import ForwardPlan

    return ForwardPlan(settings.forward, settings.peers_of_settings(), time_zone=time_zone(settings))


def forward_context(settings: Settings, database: Database) -> "ForwardContext":
    """Return the context of the forwarder."""
    from mediqa_node.decode.syntaxes import decodable_transfer_syntaxes
    from mediqa_node.network.contexts import storage_classes
    from mediqa_node.pipeline.forward.context import ForwardContext

    classes = storage_classes(settings.receiver.private_sop_classes)
    return ForwardContext(
        database=database,
        spool=open_spool(settings),
        ae_title=settings.node.ae_title,
        peers=settings.peers_of_settings(),
        destinations=frozenset(name for rule in settings.forward for name in rule.to),
        contexts=dict.fromkeys(classes, decodable_transfer_syntaxes()),
        delivery=settings.delivery,
    )


def node_context(settings: Settings, database: Database, *, assessor: "Assessor | None" = None) -> "NodeContext":
    """Return the context of the stations; a worker passes its `assessor`."""
    from mediqa_node.pipeline.durable import DurableJobs
    from mediqa_node.pipeline.node import NodeContext

    return NodeContext(
        database=database,
        spool=open_spool(settings),
        jobs=DurableJobs(database),
        device=report_device(settings),
        host_id=settings.node.host_id,
        time_zone=time_zone(settings),
        peers=settings.peers_of_settings(),
        returns=settings.returns,
        receiver=settings.receiver,
        completion=settings.completion,
        score=settings.score,
        delivery=settings.delivery,
        report=settings.report,
        companions=settings.companions,
        retention=settings.retention,
        allow_untrained=settings.model.allow_untrained,
        assessor=assessor,
    )
