"""`mediqa-node users`: who may sign in to the workbench."""

from __future__ import annotations

import getpass
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import open_node
from mediqa_node.cli.options import Commands, Json
from mediqa_node.cli.present import as_json, date, table
from mediqa_node.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from mediqa_node.domain.access import Role

users_app = typer.Typer(cls=Commands, help="Say who may sign in to the workbench.", no_args_is_help=True)
app.add_typer(users_app, name="users")

Name = Annotated[str, typer.Argument(metavar="NAME", help="User name.")]
Stdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input instead of asking for it.")
]


@users_app.command()
def add(
    context: typer.Context,
    name: Name,
    role: Annotated[
        str, typer.Option(metavar="ROLE", help="technologist, reader, physicist or administrator. Required.")
    ],
    password_stdin: Stdin = False,
) -> None:
    """Add a person. The first administrator is added this way; later ones may be added on a page."""
    from mediqa_node.storage import audit_trail, users

    wanted, name = _role(role), _name(name)
    with open_node(context) as (_, database):
        password = _hashed(password_stdin)
        now, by = time.time(), getpass.getuser()
        with database.write() as connection:
            if not users.add(connection, name, wanted, password, by=by, at=now):
                typer.echo(f"{name} exists already; `mediqa-node users list` shows everybody", err=True)
                sys.exit(1)
            audit_trail.add(connection, "user.added", at=now, by=by, role="command line", on=name, detail=wanted)
    typer.echo(f"{name} may sign in as {wanted}")


@users_app.command()
def password(context: typer.Context, name: Name, password_stdin: Stdin = False) -> None:
    """Set a new password, unlock the name and end its sessions."""
    from mediqa_node.storage import audit_trail, users

    name = _name(name)
    with open_node(context) as (_, database):
        with database.read() as connection:
            user = users.find(connection, name)
        if user is None:
            typer.echo(f"there is nobody called {name}; `mediqa-node users list` shows everybody", err=True)
            sys.exit(1)
        kept, now = _hashed(password_stdin), time.time()
        with database.write() as connection:
            unlocked = {"n_failures": 0, "locked_until": None}
            users.change(connection, user.id, at=now, password=kept, **unlocked)
            by = getpass.getuser()
            audit_trail.add(connection, "user.password", at=now, by=by, role="command line", on=name)
    typer.echo(f"{name} has a new password, and signs in again")


@users_app.command("list")
def list_(context: typer.Context, json: Json = False) -> None:
    """List everybody who may sign in, or may no longer."""
    from mediqa_node.storage import users

    with open_node(context) as (_, database), database.read() as connection:
        found = users.every(connection)
    if json:
        as_json([{"name": one.name, "role": one.role, "disabled_at": one.disabled_at} for one in found])
        return
    table(
        ("name", "role", "last sign-in", ""),
        [(one.name, one.role, date(one.last_at), "disabled" if one.disabled_at else "") for one in found],
    )
    if not found:
        typer.echo("nobody yet. → mediqa-node users add NAME --role administrator")


def _role(name: str) -> Role:
    from mediqa_node.domain.access import Role

    try:
        return Role(name)
    except ValueError:
        raise typer.BadParameter(f"{name!r}: must be one of {', '.join(Role)}", param_hint="--role") from None


def _name(given: str) -> str:
    from mediqa_node.domain.access import user_name

    try:
        return user_name(given)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="NAME") from None


def _hashed(from_stdin: bool) -> str:
    """Ask for a password, twice, or read it from standard input; return its hash."""
    from mediqa_node import service

    if service.missing_web_packages():
        raise ConfigurationError(f"the workbench is not installed: {service.WEB_FIX}")
    from mediqa_node.web.passwords import SHORTEST_PASSWORD, Passwords

    given = sys.stdin.readline().rstrip("\n") if from_stdin else getpass.getpass("Password: ")
    if len(given) < SHORTEST_PASSWORD:
        raise ConfigurationError(f"a password has at least {SHORTEST_PASSWORD} characters")
    if not from_stdin and getpass.getpass("Again: ") != given:
        raise ConfigurationError("the two passwords differ; nothing was changed")
    return Passwords().hash(given)
