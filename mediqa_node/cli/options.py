"""Options that several commands share, and the two that every command takes.

`--config` and `--log-level` are accepted before and after the name of a command: `Commands` adds them to each
command of its group.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperGroup

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def _given(context: typer.Context) -> dict[str, Any]:
    """Return the values that the command line gave, one dictionary for the program and its command."""
    root = context.find_root()
    if root.obj is None:
        root.obj = {"config": None, "log_level": "INFO"}
    found: dict[str, Any] = root.obj
    return found


def config_path(context: typer.Context) -> Path | None:
    """Return the path given by `--config`, or None."""
    path: Path | None = _given(context)["config"]
    return path


def log_level(context: typer.Context) -> str:
    """Return the level given by `--log-level`, or INFO."""
    return str(_given(context)["log_level"])


def _keep_config(context: typer.Context, value: Path | None) -> None:
    if value is not None:
        _given(context)["config"] = value


def _keep_log_level(context: typer.Context, value: str | None) -> None:
    if value is None:
        return
    if value.upper() not in LEVELS:
        raise typer.BadParameter(f"{value!r}: must be one of {', '.join(LEVELS)}")
    _given(context)["log_level"] = value.upper()


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Configuration file. Without it: $MEDIQA_CONFIG, then ./config/node.yaml, then the defaults.",
        callback=_keep_config,
        expose_value=False,
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option(
        metavar="LEVEL",
        help=f"{', '.join(LEVELS[:-1])} or {LEVELS[-1]}. The default is INFO.",
        callback=_keep_log_level,
        expose_value=False,
    ),
]


class Commands(TyperGroup):
    """A group that adds `--config` and `--log-level` to its commands and shows arguments without Python types."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for command in self.commands.values():
            if isinstance(command, TyperGroup):
                continue
            command.params.extend(_common())
            for argument in command.params:
                if isinstance(argument, TyperArgument):
                    argument.metavar = argument.metavar or str(argument.name).upper()
                    argument.display_type_rich = lambda ctx: None  # type: ignore[method-assign]


def _common() -> list[Any]:
    """Return both options in the form of the command line library."""
    carrier = typer.Typer(add_completion=False)

    @carrier.command()
    def options(config: Config = None, log_level: LogLevel = None) -> None:
        pass

    return [param for param in typer.main.get_command(carrier).params if param.name != "help"]
