"""A load of scanners on a receiver in this process, by seed, and what each was told at the moment it was told."""

import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from support.receiving import CT, Listening, Scu, command, ct, encode, p_data

from mediqa_node.network.pdu_stream import PduStream
from mediqa_node.storage.database import Database
from mediqa_node.storage.tables import metadata
from trials.power_loss import Key, Recording

_RESPONSE = b"\x00\x00\x00\x01\x02\x00\x00\x00\x01\x80"
_MESSAGE = re.compile(rb"\x00\x00\x20\x01\x02\x00\x00\x00(..)", re.DOTALL)
_STATUS = re.compile(rb"\x00\x00\x00\x09\x02\x00\x00\x00(..)", re.DOTALL)


@dataclass
class Load:
    """What scanners send: a list of instances for each, by message ID."""

    scanners: list[list[int]]
    data: dict[int, bytes] = field(default_factory=dict)
    uids: dict[int, str] = field(default_factory=dict)

    def key(self, message: int) -> Key:
        """Return UID and digest of what a message carries."""
        return self.uids[message], sha256(self.data[message]).hexdigest()

    @property
    def sent(self) -> set[Key]:
        """Everything that is tried."""
        return {self.key(message) for message in self.data}


def load_of(chance: random.Random, *, n_scanners: int, at_most: int) -> Load:
    """Draw a load: new instances, some sent again, some as a corrected copy, some with other pixels."""
    load, message = Load([[] for _ in range(n_scanners)]), 0
    for scanner in load.scanners:
        for _ in range(chance.randint(1, at_most)):
            message += 1
            number, changes = message, {}
            if message > 1 and chance.random() < 0.35:
                number = chance.randint(1, message - 1)
                changes = chance.choice(({}, {"PatientID": "SYN002"}, {"PixelData": b"\1\0" * 256}))
            ds = ct(number, SeriesInstanceUID=f"1.2.826.0.1.3680043.2.1125.8.{number % 3}", **changes)
            load.data[message], load.uids[message] = encode(ds), str(ds.SOPInstanceUID)
            scanner.append(message)
    return load


@contextmanager
def acknowledging(recording: Recording, load: Load) -> Iterator[None]:
    """Note each acknowledgement just before it goes out on the wire."""
    right = PduStream.send

    def send(stream: PduStream, data: bytes, **limits: float) -> None:
        if _RESPONSE in data and (status := _STATUS.search(data)) and status[1] == b"\0\0":
            message = _MESSAGE.search(data)
            assert message is not None
            recording.note("acknowledge", load.key(int.from_bytes(message[1], "little")))
        right(stream, data, **limits)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PduStream, "send", send)
        yield


def transmit(port: int, load: Load, chance: random.Random) -> dict[int, int]:
    """Send a load, all scanners at once; return the status of each message."""
    statuses: dict[int, int] = {}
    fragments = {message: chance.choice((300, 1000, 16_000)) for message in load.data}

    def scan(number: int, messages: list[int]) -> None:
        with Scu(port, calling=f"CT_{number}".encode(), timeout_s=120) as scu:
            for message in messages:
                statuses[message] = store(scu, load, message, fragments[message])
            scu.release()

    threads = [threading.Thread(target=scan, args=(i, messages)) for i, messages in enumerate(load.scanners)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def store(scu: Scu, load: Load, message: int, fragment: int) -> int:
    """Send one message; return its status."""
    data, uid = load.data[message], load.uids[message]
    pieces = [data[i : i + fragment] for i in range(0, len(data), fragment)]
    scu.send(p_data(1, command(CT, uid, message=message), is_command=True))
    for i, piece in enumerate(pieces):
        scu.send(p_data(1, piece, is_command=False, is_last=i == len(pieces) - 1))
    return scu.answer().status


@contextmanager
def passing_hours(step: timedelta) -> Iterator[None]:
    """Let a receiver's clock move on with each look at it, so that folders change in between."""
    state = {"now": datetime(2026, 11, 20, 22, 50, tzinfo=UTC)}
    lock = threading.Lock()

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            with lock:
                state["now"] += step
                return state["now"].astimezone(tz)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mediqa_node.storage.spool.datetime", Clock)
        patched.setattr("mediqa_node.pipeline.intake.datetime", Clock)
        yield


def prepare(folder: Path) -> None:
    """Make a folder with an empty database."""
    folder.mkdir(parents=True)
    database = Database(f"sqlite:///{folder / 'node.db'}")
    metadata.create_all(database.engine)
    database.close()


def received(folder: Path, load: Load, chance: random.Random, recording: Recording) -> dict[int, int]:
    """Run a receiver in a folder that is being recorded, and send it a load; return the status of each message."""
    with acknowledging(recording, load), passing_hours(timedelta(minutes=chance.choice((0, 1, 2)))):
        node = Listening(folder)
        try:
            return transmit(node.port, load, chance)
        finally:
            node.stop()
