"""What commands share: reading the settings, setting up logs."""

from pathlib import Path

import typer

from mediqa_node import config, logs
from mediqa_node.config import Settings


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
    logs.configure(level=context.obj["log_level"])


def _path(context: typer.Context) -> Path | None:
    path: Path | None = context.obj["config"]
    return path
