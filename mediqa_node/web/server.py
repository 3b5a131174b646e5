"""Serves the application on a socket, in a thread, until it is stopped."""

import threading

import uvicorn
from fastapi import FastAPI

from mediqa_node.domain.errors import MediqaError

_STARTS_WITHIN_S = 20.0


class CannotServe(MediqaError):
    """The port is taken, or the address is not of this machine."""


class Server:
    """One listening application."""

    def __init__(self, app: FastAPI, *, host: str, port: int, proxies: tuple[str, ...]) -> None:
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                ws="none",
                forwarded_allow_ips=list(proxies),
                timeout_graceful_shutdown=2,
                limit_concurrency=400,
            )
        )
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._ended = threading.Event()

    def _run(self) -> None:
        try:
            self._server.run()
        except SystemExit:  # uvicorn's way to say that it cannot listen
            pass
        finally:
            self._ended.set()

    def start(self) -> int:
        """Start, and return the port once it listens.

        Raises:
            CannotServe: it does not listen.
        """
        self._thread.start()
        waited = 0.0
        while not self._server.started:
            if self._ended.wait(0.02) or waited > _STARTS_WITHIN_S:
                config = self._server.config
                raise CannotServe(f"web.host {config.host}, web.port {config.port}: cannot listen there")
            waited += 0.02
        return int(self._server.servers[0].sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Stop: streams are cut, other requests have two seconds."""
        self._server.should_exit = True
        self._thread.join(timeout=5)
