"""`mediqa-node doctor`: check whether this installation works, and how to fix it if not."""

import sys
from dataclasses import asdict

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import quiet
from mediqa_node.cli.options import Json, config_path
from mediqa_node.cli.present import as_json, count, fact

_MARKS = {"ok": "ok", "note": "note", "problem": "PROBLEM"}


@app.command()
def doctor(context: typer.Context, json: Json = False) -> None:
    """Check the installation, the configuration and the node.

    Looks at versions, size, devices, decoders, model, configuration, data, database and processes. The exit status is
    1 if there is a problem.
    """
    from mediqa_node.doctor import PROBLEM, examine

    quiet("CRITICAL")  # the answer contains every error
    found = examine(config_path(context))
    problems = [finding for finding in found if finding.mark == PROBLEM]
    if json:
        as_json([asdict(finding) for finding in found])
        sys.exit(bool(problems))
    typer.echo(f"{count(len(problems), 'problem')} found" if problems else "no problem found")
    for finding in found:
        fact(f"{_MARKS[finding.mark]:<9}{finding.name}", finding.text, indent=22)
        if finding.fix:
            fact("", f"→ {finding.fix}", indent=22)
    sys.exit(bool(problems))
