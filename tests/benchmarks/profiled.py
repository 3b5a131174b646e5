"""`python -m tests.benchmarks.profiled FOLDER ARGUMENTS`: `mediqa-node ARGUMENTS`, each thread under cProfile.

The clock is the CPU time of the thread: what waits for the network, the disk or a lock costs nothing. Each thread
leaves a file of statistics in FOLDER when it ends; the accepting thread and the heartbeat are left out.
"""

import cProfile
import sys
import threading
import time

_LEFT_OUT = ("accept", "heartbeat", "_watch_supervisor")
_run = threading.Thread.run


def _profiled(thread: threading.Thread) -> None:
    if any(name in thread.name for name in _LEFT_OUT):
        _run(thread)
        return
    profile = cProfile.Profile(time.thread_time)
    try:
        profile.runcall(_run, thread)
    finally:
        profile.dump_stats(f"{sys.argv[0]}/{thread.name}.{threading.get_ident()}.{time.time_ns()}")


def main() -> None:
    """Run the command line of the node with profiled threads."""
    from mediqa_node.cli import main as command

    sys.argv = sys.argv[1:]
    threading.Thread.run = _profiled  # type: ignore[method-assign]
    command()


if __name__ == "__main__":
    main()
