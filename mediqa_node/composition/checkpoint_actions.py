"""Promotion, rollback and shadow, as a page asks for them.

They load a checkpoint and score the reference set with it, which takes torch and a gigabyte: a process of its own does
it, by the same command that a person would type, and the courier stays small.
"""

import subprocess
import sys
from dataclasses import dataclass

from mediqa_node.config import Settings
from mediqa_node.domain.commands import Command, CommandAction
from mediqa_node.domain.errors import PromotionRefused
from mediqa_node.pipeline.node import NodeContext

_AT_MOST_S = 900.0


@dataclass(frozen=True, slots=True)
class CheckpointActions:
    """Carries decisions about checkpoints out with the configuration of this node."""

    settings: Settings

    def decide(self, node: NodeContext, command: Command) -> str:
        """Carry a decision out, and return what the command printed.

        Raises:
            PromotionRefused: with what it printed instead.
        """
        given = command.arguments
        subject = {
            CommandAction.PROMOTE: ["promote", str(given.get("which", ""))],
            CommandAction.ROLL_BACK: ["rollback"],
            CommandAction.SHADOW: ["shadow", str(given.get("which", ""))],
            CommandAction.UNSHADOW: ["shadow", "--off"],
        }[command.action]
        configuration = ["--config", str(self.settings.file)] if self.settings.file else []
        line = [sys.executable, "-m", "mediqa_node", *configuration, "model", *subject]
        line += ["--by", command.by, "--reason", str(given.get("reason", ""))]
        try:
            ended = subprocess.run(line, capture_output=True, text=True, timeout=_AT_MOST_S, check=False)
        except subprocess.TimeoutExpired:
            raise PromotionRefused(f"not done within {_AT_MOST_S / 60:.0f} minutes") from None
        if ended.returncode:
            raise PromotionRefused((ended.stderr or ended.stdout).strip()[-1000:] or f"exit status {ended.returncode}")
        return ended.stdout.strip()
