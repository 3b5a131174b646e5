"""A process that is told to stop more than once."""

import os
import signal
import threading

from mediqa_node.service.roles import stop_at_a_signal


class Interrupted(threading.Event):
    """An event that a further signal interrupts while it is being set."""

    def set(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        super().set()


def test_signals_that_come_while_a_process_notices_the_first_do_not_hold_it() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stop = Interrupted()
    try:
        stop_at_a_signal(stop)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(10.0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
