"""`mediqa-train`: the command line of training.

One module per group of commands; heavy libraries are imported by the command that needs them.
Exit status: 0 good, 1 not good, 2 misused.
"""

import sys

from mediqa_node.domain.errors import CheckpointRefused, ConfigurationError, MediqaError
from training.cli import (  # noqa: F401 (they register their commands)
    adapt,
    checkpoints,
    classifier,
    evaluate,
    partial,
    recipe,
    series,
    simulate,
    stages,
    tables,
    training_range,
)
from training.cli.app import EXTRA, app, needed

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; print an expected error as one sentence instead of a traceback."""
    try:
        app()
    except ModuleNotFoundError as error:
        if (module := (error.name or "").partition(".")[0]) not in EXTRA:
            raise
        print(f"mediqa-train: {needed(module)}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except MediqaError as error:
        print(f"mediqa-train: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2 if isinstance(error, ConfigurationError | CheckpointRefused) else 1)
