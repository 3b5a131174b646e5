"""`mediqa-node doctor`: is this installation well, and what to do if not."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from mediqa_node import logs
from mediqa_node.cli import app
from mediqa_node.cli.present import count

_MARKS = {"ok": "ok", "note": "note", "problem": "PROBLEM"}


@app.command()
def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Look at versions, devices, decoders, model, configuration, data, database and processes.

    Exit status 1 if something has to be done.
    """
    from mediqa_node.doctor import PROBLEM, examine

    logs.configure(level="CRITICAL")  # the answer says it all
    found = examine(context.obj["config"])
    problems = [finding for finding in found if finding.mark == PROBLEM]
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in found], indent=2, ensure_ascii=False))
        sys.exit(bool(problems))
    typer.echo(f"{count(len(problems), 'problem')} found" if problems else "all well")
    for finding in found:
        typer.echo(f"{_MARKS[finding.mark]:<9}{finding.name:<13}{finding.text}")
        if finding.fix:
            typer.echo(f"{'':<22}→ {finding.fix}")
    sys.exit(bool(problems))
