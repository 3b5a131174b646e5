"""A site with a workbench: a node that has received and scored series, people who sign in, and pages over all of it."""

import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pydicom
import uvicorn
from starlette.testclient import TestClient

from mediqa_node.composition.resources import import_ratings
from mediqa_node.domain.access import Role
from mediqa_node.pipeline.pictures import NoPicture as NothingToShow
from mediqa_node.pipeline.pictures import PictureMaker
from mediqa_node.pipeline.worklist import WorklistSweep
from mediqa_node.storage import sessions, users, worklist
from mediqa_node.web.access import COOKIE
from mediqa_node.web.app import create_app
from mediqa_node.web.context import WebContext
from mediqa_node.web.pictures import NoPicture
from support.bench import Bench
from support.series import ct_series, series_uid
from support.workbench import CHEAP

PASSWORD = "a long password"
BROWSER = {"sec-fetch-site": "same-origin"}


@dataclass
class InProcessPictures:
    """The real maker of pictures, in this process."""

    maker: PictureMaker

    def render(self, what: str, arguments: Mapping[str, object]) -> bytes:
        """Return a picture."""
        try:
            return self.maker.make(what, arguments)
        except NothingToShow as error:
            raise NoPicture(str(error)) from error


@dataclass
class Site:
    """A node on a bench, and its workbench."""

    folder: Path
    bench: Bench = field(init=False)

    def __post_init__(self) -> None:
        self.bench = Bench(self.folder / "var")  # as a node keeps it, so that commands run on it
        maker = PictureMaker(self.bench.database, self.bench.spool)
        self.context = WebContext(
            database=self.bench.database,
            pictures=InProcessPictures(maker),
            title="MEDIQA",
            software_version="0",
            data_dir=self.folder,
            exports=self.folder,
            import_ratings=partial(import_ratings, self.bench.database),
            clock=lambda: self.bench.now,
            idle_s=1e6,
            passwords=CHEAP,
        )
        self.app = create_app(self.context)

    def close(self) -> None:
        """Give the database back."""
        self.bench.close()

    # ── series ───────────────────────────────────────────────────────────────

    def receive(self, *series: Sequence[Path]) -> list[str]:
        """Receive series, score them and enter them in the worklist; return their UIDs."""
        for paths in series:
            self.bench.receive_all(paths, association=f"a{self.bench.now}")
        self.bench.pass_time(400, until=lambda: all(self.bench.series(series_uid(one)).revision for one in series))
        while WorklistSweep(self.bench.node).run():
            pass
        return [series_uid(one) for one in series]

    def phantoms(self, n: int, *, station: str = "CT_ROOM_1", first: int = 0, slices: int = 3) -> list[str]:
        """Receive series of water that score from low to high, each of another patient."""
        made = [
            ct_series(
                self.folder / f"s{station}{i}",
                f"{station}{i}",
                slices=range(slices),
                patient_id=f"P{station}{i}",
                patient_name=f"Wasser^{i}",
                RescaleIntercept=-150 + round(380 * (i - first) / max(n - 1, 1)),
                StationName=station,
            )
            for i in range(first, first + n)
        ]
        return self.receive(*made)

    def numbers(self, uids: Sequence[str]) -> list[int]:
        """Return the numbers of series in addresses of pages."""
        with self.bench.database.read() as connection:
            return [entry.id for uid in uids if (entry := worklist.find_by_uid(connection, uid)) is not None]

    # ── people ───────────────────────────────────────────────────────────────

    def person(self, name: str, role: Role) -> TestClient:
        """Add a person, and return a browser in which they are signed in."""
        now = self.bench.now
        with self.bench.database.write() as connection:
            users.add(connection, name, role, CHEAP.hash(PASSWORD), by="test", at=now)
            user = users.find(connection, name)
            assert user is not None
            token = sessions.open_session(connection, at=now, address="", user_id=user.id)
        return TestClient(
            self.app, cookies={COOKIE: token}, headers=BROWSER, follow_redirects=False, raise_server_exceptions=True
        )

    @contextmanager
    def served(self) -> Iterator[str]:
        """Serve the pages on a free port; give the address."""
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(self.app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            until = time.monotonic() + 20
            while not server.started and time.monotonic() < until:
                time.sleep(0.02)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)
            listening.close()


def real_series(folder: Path, name: str, *, at_most: int = 12) -> list[Path]:
    """Return the first files of a series of tests/data, in order."""
    found = sorted((Path(__file__).parents[1] / "data" / name).rglob("*.dcm"))
    by_uid: dict[str, list[Path]] = {}
    for path in found:
        uid = str(pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID)
        by_uid.setdefault(uid, []).append(path)
    return next(iter(by_uid.values()))[:at_most]
