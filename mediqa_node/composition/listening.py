"""From settings to listening sockets: those of the supervisor, and those of the receiver that it starts."""

import errno
import socket
import time
from collections.abc import Callable, Mapping

import structlog

from mediqa_node.config import Settings
from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.network.listeners import PLAIN, TLS, Listener, listen
from mediqa_node.network.tls import ServerTls

log = structlog.get_logger("serve")

_AGAIN_AFTER_S = 0.1
_CHANGED = "`node.port` or `receiver.tls` has changed: stop `mediqa-node serve` and start it again"


def open_sockets(settings: Settings) -> dict[str, socket.socket]:
    """Listen on every port of the configuration.

    Raises:
        ConfigurationError: a port cannot be listened on; the message names the keys.
    """
    opened: dict[str, socket.socket] = {}
    for name, (host, port, keys) in _wanted(settings).items():
        try:
            opened[name] = listen(host, port)
        except OSError as error:
            for one in opened.values():
                one.close()
            text = f"{keys}: cannot listen there: {error.strerror or error}"
            raise ConfigurationError(text) from error
    return opened


def open_sockets_after(settings: Settings, is_outlived: Callable[[], bool]) -> dict[str, socket.socket]:
    """Listen on every port, as soon as a receiver that outlived its supervisor has given it back.

    Args:
        is_outlived: whether there is such a receiver; it is about to stop.
    """
    while True:
        outlived = is_outlived()
        try:
            return open_sockets(settings)
        except ConfigurationError as error:
            cause = error.__cause__
            if not (outlived and isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE):
                raise
            log.info("waiting for a receiver that has not stopped yet", reason=str(error), hourly_for="port")
            time.sleep(_AGAIN_AFTER_S)


def listeners(settings: Settings, handed_over: Mapping[str, socket.socket] | None) -> list[Listener]:
    """Return the listeners of the receiver.

    Args:
        handed_over: the sockets of its supervisor, which are as the configuration was when that started; None: it has
            no supervisor, and listens by itself.
    """
    tls, wanted = settings.receiver_tls, _wanted(settings)
    sockets = open_sockets(settings) if handed_over is None else handed_over
    found = [Listener(sockets[PLAIN])] if PLAIN in sockets and PLAIN in wanted else []
    if tls is not None and TLS in sockets:
        found.append(Listener(sockets[TLS], ServerTls(tls)))
    if not found:
        raise ConfigurationError(_CHANGED)
    if set(wanted) != set(sockets) or any(
        wanted[name][1] not in (0, opened.getsockname()[1]) for name, opened in sockets.items()
    ):
        log.error("listening where it did before", reason=_CHANGED)
    return found


def _wanted(settings: Settings) -> dict[str, tuple[str, int, str]]:
    """Return host, port and their keys by the name of the listener."""
    node, tls = settings.node, settings.receiver_tls
    wanted = {}
    if tls is None or tls.plain:
        wanted[PLAIN] = node.host, node.port, f"node.host {node.host}, node.port {node.port}"
    if tls is not None:
        host = tls.host or node.host
        wanted[TLS] = host, tls.port, f"receiver.tls.host {host}, receiver.tls.port {tls.port}"
    return wanted
