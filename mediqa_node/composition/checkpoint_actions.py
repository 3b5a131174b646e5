"""Promotion, rollback and shadow, as a page asks for them.

They load a checkpoint and score the reference set with it, which takes torch and a gigabyte: a process of its own does
it, by the same command that a person would type, and the courier stays small.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from mediqa_node.config import Settings
from mediqa_node.domain.commands import Command, CommandAction
from mediqa_node.domain.errors import PromotionRefused
from mediqa_node.pipeline.heartbeat import goes_on
from mediqa_node.pipeline.node import NodeContext

_AT_MOST_S, _LOOK_EVERY_S = 900.0, 1.0
_ENDS_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class CheckpointActions:
    """Carries decisions about checkpoints out with the configuration of this node.

    Attributes:
        stopping: whether this process is about to end: a decision that is under way is given up with it.
    """

    settings: Settings
    stopping: Callable[[], bool]

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
        status, printed, errors = self._run(line)
        if status:
            raise PromotionRefused((errors or printed).strip()[-1000:] or f"exit status {status}")
        return printed.strip()

    def _run(self, line: list[str]) -> tuple[int, str, str]:
        """Run a command; return its exit status and what it printed to both outputs."""
        until = time.monotonic() + _AT_MOST_S
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            while True:
                try:
                    printed, errors = process.communicate(timeout=_LOOK_EVERY_S)
                except subprocess.TimeoutExpired:
                    goes_on()
                else:
                    return process.returncode, printed, errors
                late = time.monotonic() > until
                if late or self.stopping():
                    _end(process)
                    raise PromotionRefused(
                        f"not done within {_AT_MOST_S / 60:.0f} minutes" if late else "the node was stopped; ask again"
                    )


def _end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.communicate(timeout=_ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
