"""Commands that need no running node: check the configuration, talk to a peer, print the conformance statement."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import settings_of
from mediqa_node.cli.options import Commands
from mediqa_node.cli.present import count, fact
from mediqa_node.cli.progress import progress
from mediqa_node.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from mediqa_node.config import Settings
    from mediqa_node.domain.peer import Peer

config_app = typer.Typer(
    cls=Commands, help="Check or print the configuration.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(config_app, name="config")


@config_app.command("check")
def check_config(
    context: typer.Context,
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="With --against: DICOM files, or folders.", exists=True)
    ] = None,
    against: Annotated[
        bool, typer.Option("--against", help="Print which rules take the files that follow, and why.")
    ] = False,
    sender: Annotated[
        str, typer.Option("--from", metavar="AE", help="With --against: the calling AE title they would come from.")
    ] = "",
    called: Annotated[
        str | None, typer.Option(metavar="AE", help="With --against: the AE title they would be sent to.")
    ] = None,
) -> None:
    """Check the configuration and the files that it names.

    Prints the peers and what each rule for reports and forwarding does, and warns if no report can be sent. The exit
    status is 2 if the configuration has an error.
    """
    from mediqa_node.cli import rules as explained
    from mediqa_node.composition import certificates, checkpoints, resources
    from mediqa_node.domain.health import of_tls
    from mediqa_node.domain.match import words
    from mediqa_node.domain.returns import obstacle, outcomes, unheard

    if bool(paths) != against:
        raise typer.BadParameter("--against and files go together", param_hint="--against")
    settings = settings_of(context)
    checkpoints.prompt_rules(settings)
    resources.time_zone(settings)
    checkpoints.check_checkpoint(settings)
    certificates.check_files(settings)
    rules, peers = settings.returns, settings.peers_of_settings()
    for peer in peers:
        for file in peer.dicomweb.files if peer.dicomweb is not None else ():
            if not file.is_file():
                raise ConfigurationError(f"{settings.file}: peers.{peer.name}.dicomweb: {file} is no file")
    why_not = obstacle(rules, peers, settings.receiver)
    typer.echo(f"{settings.file or 'defaults'}: {'no errors, but no report will be sent' if why_not else 'good'}")
    fact("receives", settings.address)
    fact("data", str(settings.data_dir))
    for i, peer in enumerate(peers):
        fact("" if i else "peers", f"{peer.name}: {peer.where}{' with TLS' if peer.tls else ''}")
    for i, text in enumerate(outcomes(rules, peers)):
        fact("" if i else "returns", f"{i + 1}. {text}")
    for i, rule in enumerate(settings.forward):
        fact("" if i else "forwards", f"{i + 1}. {words(rule)}: to {' and '.join(rule.to)}")
    if not settings.model.allow_untrained:
        fact("withholds", "scores of untrained weights (`model.allow_untrained: false`)")
    for warning in (*([why_not] if why_not else []), *unheard(peers, settings.receiver)):
        fact("WARNING", warning)
    for text in certificates.warnings(settings):
        fact("WARNING", text)
    for concern in of_tls(certificates.tls_files(settings), time.time()):
        fact("WARNING", f"{concern.about}: {concern.text}")
    if paths and not explained.explain(settings, paths, sender=sender, called=called or settings.node.ae_title):
        typer.echo("no DICOM file among them")
        sys.exit(1)


@config_app.command("show")
def show_config(context: typer.Context) -> None:
    """Print the configuration with all defaults."""
    shown = settings_of(context).as_yaml().rstrip()
    typer.echo(re.sub(r"(://[^:/@\s]+):[^@\s]+@", r"\1:***@", shown))


def peer_of(settings: Settings, name: str) -> Peer:
    """Return a configured peer by its name.

    Raises:
        ConfigurationError: there is none.
    """
    found = next((peer for peer in settings.peers_of_settings() if peer.name == name), None)
    if found is None:
        known = ", ".join(settings.peers) or "none"
        raise ConfigurationError(f"{settings.file or 'defaults'}: no peer {name!r}; configured: {known}")
    return found


@app.command()
def echo(context: typer.Context, peer: Annotated[str, typer.Argument(help="Name of a configured peer.")]) -> None:
    """Check that a peer answers (C-ECHO; a query, by DICOMweb)."""
    from mediqa_node.network.sender import open_link, verification_contexts

    settings = settings_of(context)
    target = peer_of(settings, peer)
    with open_link(target, verification_contexts(), ae_title=settings.node.ae_title, timeout_s=10) as link:
        link.verify()
    typer.echo(f"{target.name} ({target.where}) answers")


@app.command()
def send(
    context: typer.Context,
    peer: Annotated[str, typer.Argument(help="Name of a configured peer.")],
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="DICOM files, or folders to search.", exists=True)
    ],
) -> None:
    """Send DICOM files to a peer.

    The exit status is 1 if a file was not stored.
    """
    from mediqa_node.cli.files import dicom_files
    from mediqa_node.network.sender import send_files

    settings = settings_of(context)
    target = peer_of(settings, peer)
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
    """Print the DICOM conformance statement."""
    from mediqa_node.conformance import statement

    typer.echo(statement().rstrip())
