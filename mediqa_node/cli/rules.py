"""Which rules take a file, and why: `mediqa-node config check --against`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mediqa_node.cli.present import fact

if TYPE_CHECKING:
    from mediqa_node.config import Settings
    from mediqa_node.domain.match import Facts, Match


def explain(settings: Settings, paths: Sequence[Path], *, sender: str, called: str) -> int:
    """Print for each file which rule of each list takes it; return how many files there are.

    Args:
        sender: the calling AE title it would come from.
        called: the AE title that it would be sent to.
    """
    from mediqa_node.cli.files import dicom_files
    from mediqa_node.composition.resources import time_zone

    files = dicom_files(paths)
    today = datetime.now(time_zone(settings)).date()
    peer = next((peer.name for peer in settings.peers_of_settings() if peer.ae_title == sender), None)
    senders = (sender, *((peer,) if peer else ()))
    for path in files:
        typer.echo(str(path))
        _explain_file(settings, path, senders, called, today)
    return len(files)


def _explain_file(settings: Settings, path: Path, senders: tuple[str, ...], called: str, today: date) -> None:
    from mediqa_node.dicom.matching import facts_of
    from mediqa_node.dicom.part10 import read_header
    from mediqa_node.domain.match import failing

    header = read_header(path)
    lists = _lists(settings)
    keywords = frozenset[str]().union(*(rule.keywords for rules in lists.values() for rule in rules))
    facts = facts_of(header, keywords, senders=senders, called=called, today=today)
    for name, rules in lists.items():
        taken = [i for i, rule in enumerate(rules) if not failing(rule, facts)]
        if name != "forward":
            taken = taken[:1]
        lines = [f"rule {i + 1}{_effect(rules[i])}" for i in taken] or ["no rule"]
        for i, rule in enumerate(rules):
            if i not in taken:
                key = failing(rule, facts)
                lines.append(f"not rule {i + 1}: {_why(rule, key, facts) if key else 'an earlier one has taken it'}")
        for i, line in enumerate(lines):
            fact(f"  {name}" if i == 0 else "", line, indent=20)


def _lists(settings: Settings) -> dict[str, Sequence[Match]]:
    """Return the lists of rules that are not empty."""
    lists: dict[str, Sequence[Match]] = {
        "forward": settings.forward,
        "returns": settings.returns,
        "score.rules": settings.score.rules,
        "score.primary": () if isinstance(settings.score.primary, str) else settings.score.primary,
        "score.phantoms": settings.score.phantoms,
        "completion.rules": settings.completion.rules,
    }
    return {name: rules for name, rules in lists.items() if rules}


def _effect(rule: Match) -> str:
    """Return what a rule does, as far as it names peers or gives a name."""
    to = getattr(rule, "to", None)
    if to is not None:
        return f": to {', '.join(to) or 'nobody'}"
    if (name := getattr(rule, "name", None)) is not None:
        return f": {name}"
    if (score := getattr(rule, "score", None)) is not None:
        return ": scored" if score else ": not scored"
    return ""


def _why(rule: Match, key: str, facts: Facts) -> str:
    """Return which condition does not hold, and what was found; identifying values are not repeated."""
    from mediqa_node.domain.match import PATTERNS

    wanted = rule.conditions().get(key, rule.attributes.get(key))
    if key == "from":
        return f"from {wanted!r}, found {' or '.join(facts.senders)}"
    if key == "called":
        return f"called {wanted!r}, found {facts.called!r}"
    if key.startswith("study_"):
        age = facts.study_age_days
        return f"{key} {wanted}, found {'no Study Date' if age is None else f'{age:g} days'}"
    values = facts.values.get(PATTERNS.get(key, "Modality" if key == "modality" else key), ())
    return f"{key} {wanted!r}, found {', '.join(map(repr, values)) or 'nothing'}"
