"""The data folder: who may read it, the identity that is kept in it, and that it is the one its database means.

Several hosts mount the same folder. Where it is not mounted there is an empty one, or none: a host that began to write
there would lose what it has answered for.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from mediqa_node.config import Settings
from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.storage import installation
from mediqa_node.storage.database import Database
from mediqa_node.system.atomic import write_atomically

FOLDER_MODE = 0o750
"""Permissions of the data folder, which holds patient identifiers: user and group only."""
_IDENTITY = "identity.json"


def make(settings: Settings) -> None:
    """Create the data folder, if it does not exist, for the user and the group of the node.

    Raises:
        ConfigurationError: it cannot be created.
    """
    try:
        settings.data_dir.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        settings.lock_dir.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(f"node.data_dir {settings.data_dir}: cannot be created: {reason}") from error


def identity(settings: Settings) -> dict[str, str]:
    """Return device UID and serial number of this installation, generated once and kept in the data folder.

    Raises:
        ConfigurationError: the folder is not mounted; only `claim` begins one that several hosts share.
    """
    kept = _kept(settings)
    if kept is None and settings.database.url is not None:
        raise ConfigurationError(f"{settings.data_dir / _IDENTITY} is missing: mount node.data_dir, or restore it")
    kept = kept or _write(settings, _new())
    return {**kept, **({"device_uid": settings.node.device_uid} if settings.node.device_uid else {})}


def claim(settings: Settings, database: Database) -> None:
    """See that the data folder is the one that this database belongs to; a new database takes the folder as it is.

    Raises:
        ConfigurationError: it is that of another node, or is not mounted; or several hosts cannot share it.
    """
    found = _kept(settings)
    with database.write() as connection:
        known = installation.identity(connection)
        if known is None:
            installation.set_identity(database, connection, found or _write(settings, _new()))
        elif found is None and database.is_sqlite:  # which lies in that folder itself
            _write(settings, known)
        elif found is None or found["device_uid"] != known["device_uid"]:
            raise ConfigurationError(_not_this_folder(settings, known))
    if settings.node.host_id is not None:
        _require_links(settings.data_dir)


def _not_this_folder(settings: Settings, known: dict[str, str]) -> str:
    file = settings.data_dir / _IDENTITY
    return (
        f"node.data_dir {settings.data_dir} is not the folder of this database: {_IDENTITY} is missing in it, or names "
        f"another installation. Mount the folder that all hosts share, or restore it from a backup. If it is lost for "
        f"good, and its images with it, write {json.dumps(known)} to {file} and start again"
    )


def _require_links(folder: Path) -> None:
    """Raise ConfigurationError if a file of a folder cannot have two names: a host takes over from another that way."""
    first, second = folder / f".{uuid4().hex}", folder / f".{uuid4().hex}"
    try:
        with _empty(first):
            os.link(first, second)
            second.unlink()
    except OSError as error:
        raise ConfigurationError(
            f"node.data_dir {folder}: {error.strerror}; several hosts need a folder with the guarantees of POSIX, such "
            f"as NFS: hard links, rename and fsync"
        ) from error


@contextmanager
def _empty(path: Path) -> Iterator[None]:
    path.touch(exist_ok=False)
    try:
        yield
    finally:
        path.unlink()


def _kept(settings: Settings) -> dict[str, str] | None:
    try:
        kept: dict[str, str] = json.loads((settings.data_dir / _IDENTITY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return kept


def _new() -> dict[str, str]:
    return {"device_uid": f"2.25.{uuid4().int}", "serial_number": uuid4().hex[:12].upper()}


def _write(settings: Settings, made: dict[str, str]) -> dict[str, str]:
    make(settings)
    write_atomically(settings.data_dir / _IDENTITY, json.dumps(made).encode())
    return made
