"""Helpers shared by commands: reading settings, opening the node's database, setting up logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from mediqa_node.cli.options import config_path, log_level
from mediqa_node.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from mediqa_node.config import Settings
    from mediqa_node.storage.database import Database


def settings_of(context: typer.Context) -> Settings:
    """Read the configuration that this command line names.

    Raises:
        ConfigurationError: with file, key, value and what is allowed.
    """
    from mediqa_node import config

    return config.load(config.find(config_path(context)))


def arguments_of(context: typer.Context, settings: Settings) -> list[str]:
    """Return the options that make a child process read the same configuration."""
    named = ["--config", str(settings.file)] if settings.file else []
    return [*named, "--log-level", log_level(context)]


def start_logging(context: typer.Context) -> None:
    """Log to standard error, at the level of the command line: JSON lines, or readable text on a terminal."""
    quiet(log_level(context))


def quiet(level: str = "ERROR") -> None:
    """Limit logging to this level, so that standard output has only the command's answer."""
    from mediqa_node import logs

    logs.configure(level=level)


@contextmanager
def open_node(context: typer.Context) -> Iterator[tuple[Settings, Database]]:
    """Open the database of the configured node.

    Raises:
        ConfigurationError: there is no database yet, or its tables are of another version.
    """
    from mediqa_node.composition import resources
    from mediqa_node.storage.migrate import mismatch

    settings = settings_of(context)
    if (where := settings.missing_database) is not None:
        raise ConfigurationError(f"no database at {where}; start the node once with `mediqa-node serve`")
    database = resources.open_database(settings)
    try:
        if (why := mismatch(database)) is not None:
            raise ConfigurationError(why)
        yield settings, database
    finally:
        database.close()
