"""A workbench over a database of its own, with people, tablets and series in it. Time moves only when told to."""

import gzip
import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from argon2 import PasswordHasher
from httpx import Response
from starlette.testclient import TestClient

from mediqa_node.domain.access import Role
from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.worklist import Category
from mediqa_node.storage import assessments, audit_trail, sessions, users, workbench_tables, worklist
from mediqa_node.storage.audit_trail import Event
from mediqa_node.storage.database import Database
from mediqa_node.storage.tables import deliveries, instances, reports, series
from mediqa_node.web.access import COOKIE
from mediqa_node.web.app import create_app
from mediqa_node.web.context import WebContext
from mediqa_node.web.passwords import Passwords
from mediqa_node.web.server import Server
from support import factories
from support.bench import migrate

NOW = 1_790_000_000.0
PASSWORD = "a good long password"
ORIGIN = "http://node.test"
CHEAP = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
"""Hashes in microseconds. Only what is kept in a test's own database is computed with it."""

_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c626001000000ffff03000006"
    "0005574bfabf0000000049454e44ae426082"
)


EMPTY_ENTRY = {
    column.name: column.type.python_type()
    for column in workbench_tables.worklist.c
    if not column.nullable and not column.primary_key and column.name != "change"
}
"""What a column that a test does not care about holds, such as one that is younger than the test."""


class Clock:
    """The time of a site, seconds since 1970."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class SamePictures:
    """Renders every picture as the same few pixels, without a process or an image."""

    def render(self, what: str, arguments: Mapping[str, object]) -> bytes:
        """Return a picture of this kind."""
        if what == "report":
            return json.dumps([{"depth": 0, "name": "Report", "kind": "CONTAINER", "value": ""}]).encode()
        if what == "slice":
            head = struct.pack("<IIddddI", 4, 4, 1.0, 0.0, 40.0, 400.0, 1_000_000)
            return gzip.compress(head + bytes(32), mtime=0)
        if what == "map":
            return gzip.compress(struct.pack("<II", 4, 4) + bytes(32), mtime=0)
        return _PNG


class Site:
    """One node's workbench.

    Args:
        folder: for its database.
        settings: fields of `WebContext` that differ from those of a loopback node.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.database = Database(f"sqlite:///{folder / 'node.db'}")
        migrate(self.database)
        self.clock = settings.pop("clock", None) or Clock()
        self.context = WebContext(**{
            "database": self.database,
            "pictures": SamePictures(),
            "title": "MEDIQA",
            "software_version": "0.test",
            "data_dir": folder,
            "exports": folder / "exports",
            "clock": self.clock,
            "passwords": CHEAP,
        } | settings)  # fmt: skip
        self.app = create_app(self.context)

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    # ── people, tablets, programs ────────────────────────────────────────────

    def add_user(self, name: str, role: Role | str, password: str = PASSWORD) -> int:
        """Add a person, if there is none of this name yet; return the number."""
        with self.database.write() as connection:
            users.add(connection, name, Role(role), CHEAP.hash(password), by="test", at=self.clock())
            user = users.find(connection, name)
        assert user is not None
        return user.id

    def token(self, role: Role | str, name: str | None = None, *, kind: str = sessions.BROWSER) -> str:
        """Open a session of a person, who is named like the role unless told otherwise; return its token."""
        user_id = self.add_user(name or Role(role), role)
        with self.database.write() as connection:
            return sessions.open_session(
                connection, at=self.clock(), address="10.0.0.7", user_id=user_id, kind=kind, label="test"
            )

    def tablet_token(self, *scanners: str, name: str = "room") -> str:
        """Enrol the tablet of a room; return the token of its session."""
        with self.database.write() as connection:
            _, code = sessions.add_room(connection, name, list(scanners), by="test", at=self.clock(), valid_s=900.0)
            found = sessions.enrol(connection, code, at=self.clock(), address="10.0.0.8")
        assert found is not None
        return found[0]

    def client(self, role: Role | str | None = None, name: str | None = None, **options: Any) -> TestClient:
        """Return a browser in which somebody is signed in; None: nobody. `options` as of `browser`."""
        return self.browser(None if role is None else self.token(role, name), **options)

    def tablet(self, *scanners: str, name: str = "room", **options: Any) -> TestClient:
        """Return the browser of a room's tablet."""
        return self.browser(self.tablet_token(*scanners, name=name), **options)

    def program(self, role: Role | str, name: str | None = None) -> TestClient:
        """Return a client that sends an access token."""
        token = self.token(role, name, kind=sessions.TOKEN)
        return TestClient(self.app, ORIGIN, follow_redirects=False, headers={"authorization": f"Bearer {token}"})

    def browser(
        self, token: str | None, *, address: str = "10.0.0.7", headers: Mapping[str, str] | None = None
    ) -> TestClient:
        """Return a browser with the cookie of a session; it names its origin, as browsers do, and follows nothing."""
        found = TestClient(
            self.app,
            ORIGIN,
            follow_redirects=False,
            headers={"origin": ORIGIN, **(headers or {})},
            client=(address, 50_000),
        )
        if token is not None:
            found.cookies.set(COOKIE, token, domain=ORIGIN.partition("://")[2])
        return found

    # ── what pages show ──────────────────────────────────────────────────────

    def add_series(self, *, assessment: Assessment | None = None, **values: Any) -> int:
        """Add a series with its entry in the worklist, scored and to be repeated; return its number.

        Args:
            assessment: as it is stored; by default that of `factories.ct_volume`.
            values: fields of `domain.worklist.Entry`; `score=None` for a series without an assessment.
        """
        with self.database.write() as connection:
            count = connection.execute(sa.select(sa.func.count()).select_from(series)).scalar_one() + 1
            entry = _entry_values(count, self.clock()) | values
            uid = entry["series_instance_uid"]
            scored = entry["score"] is not None
            connection.execute(sa.insert(series).values(**_series_values(entry)))
            if scored:
                found = assessment or factories.ct_volume().assessment
                found = replace(found, series_instance_uid=uid, study_instance_uid=entry["study_instance_uid"])
                assessments.save_assessment(connection, found, generation=1)
                assessments.save_technique(connection, uid, found.technique)
            columns = EMPTY_ENTRY | worklist.values_of(entry)
            del columns["series_instance_uid"]
            worklist.save(connection, uid, columns)
            found_entry = worklist.find_by_uid(connection, uid)
        assert found_entry is not None
        return found_entry.id

    def uid_of(self, number: int) -> str:
        """Return the Series Instance UID of a series."""
        with self.database.read() as connection:
            entry = worklist.find(connection, number)
        assert entry is not None
        return entry.series_instance_uid

    def add_patient(self, number: int, **identity: str) -> None:
        """Let the first image of a series name a patient; fields of `domain.identity.Identity`."""
        uid = self.uid_of(number)
        same = {
            "sop_class_uid": factories.CT_IMAGE,
            "study_instance_uid": "1.1",
            "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        }
        same |= {"status": "current", "association_id": "a", "calling_ae_title": "CT1", "received_at": self.clock()}
        same |= {"path": f"{uid}.dcm", "sha256": "0" * 64, "size_bytes": 1, "identity": identity}
        with self.database.write() as connection:
            connection.execute(
                sa.insert(instances).values(sop_instance_uid=f"{uid}.1", series_instance_uid=uid, **same)
            )

    def add_delivery(self, number: int, **values: Any) -> int:
        """Add a delivery of the report of a series, parked unless told otherwise; return its number."""
        row = {"series_instance_uid": self.uid_of(number), "revision": 1, "destination": "PACS", "state": "parked"}
        row |= {"reason_code": "unreachable", "not_before": self.clock(), "wait_for_study_until": 0.0, "attempts": 3}
        row |= {"jobs": 1, "message": "refused", "created_at": self.clock()}
        with self.database.write() as connection:
            made = connection.execute(sa.insert(deliveries).values(**row | values).returning(deliveries.c.id))
            return int(made.scalar_one())

    def add_report(self, number: int, part10: bytes = b"\0" * 128 + b"DICM") -> None:
        """Add a built report of a series."""
        uid = self.uid_of(number)
        same = {"study_instance_uid": "1.1", "revision": 1, "sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.22"}
        same |= {"sr_series_instance_uid": f"{uid}.9", "series_number": 9000, "instance_number": 1, "sha256": "a" * 64}
        with self.database.write() as connection:
            row = {"sop_instance_uid": f"{uid}.9.1", "series_instance_uid": uid, "part10": part10, **same}
            connection.execute(sa.insert(reports).values(created_at=self.clock(), **row))

    # ── what was done ────────────────────────────────────────────────────────

    def events(self, action: str = "", outcome: str = "") -> list[Event]:
        """Return audited actions, the first first; only those of an action or outcome."""
        with self.database.read() as connection:
            found = audit_trail.search(connection, at_most=10_000)[::-1]
        return [one for one in found if action in ("", one.action) and outcome in ("", one.outcome)]

    @contextmanager
    def served(self, **options: Any) -> Iterator[str]:
        """Serve on a free port of this machine; give the address."""
        server = Server(self.app, host="127.0.0.1", port=0, **{"proxies": (), **options})
        port = server.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.stop()


def routes_of(part: Any) -> Iterator[tuple[str, str]]:
    """Give method and path of every route of an application, however its framework keeps them."""
    for route in part.routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from routes_of(inner)
        else:
            yield from ((method, route.path) for method in route.methods - {"HEAD"})


def sign_in(browser: TestClient, name: str = "jane", password: str = PASSWORD, **more: str) -> Response:
    """Send the form of the page for signing in."""
    return browser.post("/sign-in", data={"name": name, "password": password, **more})


def is_in(browser: TestClient) -> bool:
    """Return whether somebody is signed in."""
    return browser.get("/").status_code == 200


def _entry_values(count: int, now: float) -> dict[str, Any]:
    """Return the fields of the n-th entry: a CT series of CT1 with a low score, received a minute ago."""
    return {
        "series_instance_uid": f"1.2.3.{count}",
        "study_instance_uid": f"1.2.9.{count}",
        "generation": 1,
        "revision": 1,
        "received_at": now - 60.0,
        "last_image_at": now - 50.0,
        "n_images": 20,
        "state": "DELIVERED",
        "category": Category.REPEAT,
        "reason_code": None,
        "modality": "CT",
        "scanner": "CT1",
        "model": "Scanner 3000",
        "protocol": "Chest",
        "description": f"Lung {count}",
        "series_number": count,
        "sender": "CT1",
        "accession_end": "0123",
        "acquired": "AXIAL",
        "region": "chest",
        "type": "lung",
        "score": 0.31,
        "trained": True,
        "weights_sha256": factories.WEIGHTS,
        "provisional_until": None,
        "usual": None,
        "thresholds": (0.4, 0.6),
        "why": "3 of 7 slices below 40",
        "why_more": "Noise 21 HU, usual 14",
        "predicted": (71.0, 131.0),
        "recorded": 265.0,
        "unit": "mAs",
        "delivery": None,
        "destination": "",
        "delivered_in_s": None,
        "answer": None,
        "answered_at": None,
        "eligible": True,
    }


def _series_values(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a series for the fields of its entry."""
    same = {"calling_ae_title": "CT1", "association_id": "a", "n_associations": 1, "longest_gap_s": 0.0}
    kept = ("series_instance_uid", "study_instance_uid", "modality", "state", "reason_code", "series_number")
    own = {name: entry[name] for name in (*kept, "generation")}
    times = dict.fromkeys(("opened_at", "last_instance_at", "state_at"), entry["last_image_at"])
    revision = entry["revision"] if entry["score"] is not None else 0
    return {**own, **same, **times, "revision": revision, "n_instances": entry["n_images"]}
