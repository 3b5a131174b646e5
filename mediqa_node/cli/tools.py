"""Commands that need no running node: score files, talk to a peer, look at the configuration."""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import settings_of
from mediqa_node.cli.present import count
from mediqa_node.cli.progress import progress
from mediqa_node.composition import checkpoints, resources
from mediqa_node.config import Settings
from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.peer import Peer

config_app = typer.Typer(help="Look at the configuration in use.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config_app, name="config")


@config_app.command("check")
def check_config(context: typer.Context) -> None:
    """Read the configuration and everything it names; exit 2 and say what is wrong, or 0."""
    settings = settings_of(context)
    checkpoints.prompt_rules(settings)
    resources.time_zone(settings)
    checkpoints.check_checkpoint(settings)
    typer.echo(f"{settings.file or 'defaults'}: good")
    typer.echo(f"  receives   {settings.node.ae_title} at {settings.node.host}:{settings.node.port}")
    typer.echo(f"  keeps      {settings.data_dir}")
    typer.echo(f"  returns to {', '.join(settings.peers) or 'nobody: no `peers` are configured'}")
    if not settings.model.allow_untrained:
        typer.echo("  withholds  scores of untrained weights (`model.allow_untrained: false`)")


@config_app.command("show")
def show_config(context: typer.Context) -> None:
    """Print the effective configuration, defaults and environment included."""
    shown = settings_of(context).as_yaml().rstrip()
    typer.echo(re.sub(r"(://[^:/@\s]+):[^@\s]+@", r"\1:***@", shown))


def _peer(settings: Settings, name: str) -> Peer:
    found = next((peer for peer in settings.peers_of_settings() if peer.name == name), None)
    if found is None:
        known = ", ".join(settings.peers) or "none"
        raise ConfigurationError(f"{settings.file or 'defaults'}: no peer {name!r}; configured: {known}")
    return found


@app.command()
def echo(context: typer.Context, peer: Annotated[str, typer.Argument(help="Name of a configured peer")]) -> None:
    """Verify a peer with C-ECHO."""
    from mediqa_node.network.sender import connect, verification_contexts

    settings = settings_of(context)
    target = _peer(settings, peer)
    with connect(target, verification_contexts(), ae_title=settings.node.ae_title, timeout_s=10) as link:
        link.verify()
    typer.echo(f"{target.name} ({target.ae_title} at {target.host}:{target.port}) answers")


@app.command()
def send(
    context: typer.Context,
    peer: Annotated[str, typer.Argument(help="Name of a configured peer")],
    paths: Annotated[list[Path], typer.Argument(help="DICOM files, or folders to search", exists=True)],
) -> None:
    """Send DICOM files to a configured peer.

    Exit status 1 if one was not stored.
    """
    from mediqa_node.cli.files import dicom_files
    from mediqa_node.network.sender import send_files

    settings = settings_of(context)
    target = _peer(settings, peer)
    files = dicom_files(paths)
    failures = 0
    with progress(f"sending to {target.name}") as advance:
        for done, (path, failure) in enumerate(send_files(target, files, ae_title=settings.node.ae_title), start=1):
            advance(done, len(files))
            if failure:
                failures += 1
                typer.echo(f"{path}: {failure}", err=True)
    typer.echo(f"{count(len(files) - failures, 'instance')} stored at {target.name}, {failures} not")
    sys.exit(1 if failures or not files else 0)


@app.command()
def conformance() -> None:
    """Print the DICOM conformance statement, made from the code."""
    from mediqa_node.conformance import statement

    typer.echo(statement().rstrip())
