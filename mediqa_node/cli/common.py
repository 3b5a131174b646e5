"""What commands share: reading the settings, setting up logs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from mediqa_node import config, logs
from mediqa_node.composition import resources
from mediqa_node.config import Settings
from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.storage.database import Database

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def settings_of(context: typer.Context) -> Settings:
    """Read the configuration that this command line names.

    Raises:
        ConfigurationError: with file, key, value and what is allowed.
    """
    return config.load(config.find(_path(context)))


def arguments_of(context: typer.Context, settings: Settings) -> list[str]:
    """Return the options that make a child process read the same configuration."""
    named = ["--config", str(settings.file)] if settings.file else []
    return [*named, "--log-level", context.obj["log_level"]]


def start_logging(context: typer.Context) -> None:
    """Log to standard error: JSON lines, or readable on a terminal."""
    level = context.obj["log_level"].upper()
    if level not in LEVELS:
        raise ConfigurationError(f"--log-level {level}: must be one of {', '.join(LEVELS)}")
    logs.configure(level=level)


def _path(context: typer.Context) -> Path | None:
    path: Path | None = context.obj["config"]
    return path


@contextmanager
def open_node(context: typer.Context) -> Iterator[tuple[Settings, Database]]:
    """Open the database of the configured node, for a command that looks or mends.

    Raises:
        ConfigurationError: there is no node at that place yet.
    """
    settings = settings_of(context)
    if (where := settings.missing_database) is not None:
        raise ConfigurationError(f"no database at {where}; start the node once with `mediqa-node serve`")
    database = resources.open_database(settings)
    try:
        yield settings, database
    finally:
        database.close()


@contextmanager
def open_current_node(context: typer.Context) -> Iterator[tuple[Settings, Database]]:
    """Open the database of the configured node, for a command that needs tables of this version.

    Raises:
        ConfigurationError: there is no node at that place yet, or it has not been started with this version.
    """
    from mediqa_node.storage.migrate import is_current

    with open_node(context) as (settings, database):
        if not is_current(database):
            raise ConfigurationError("the database is of another version; `mediqa-node serve` brings it up to date")
        yield settings, database
