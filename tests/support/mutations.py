"""Mutated PDUs and datasets, by seed, and how each of them was answered."""

import random
import socket
import zlib
from collections import Counter
from contextlib import suppress
from functools import cache
from pathlib import Path

from support.receiving import (
    BIG,
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Scu,
    associate_rq,
    command,
    ct,
    encode,
    encoded_dataset,
    p_data,
    store_rq,
)

DATA = Path(__file__).parents[1] / "data"
UID = str(ct().SOPInstanceUID)
RELEASE = b"\5\0\0\0\0\4\0\0\0\0"
ECHO = p_data(5, command(VERIFICATION, "", field=0x30, with_dataset=False), is_command=True)
CONTEXTS = {1: (CT, [EXPLICIT]), 5: (VERIFICATION, [IMPLICIT])}
CONTEXTS |= {7: (CT, [IMPLICIT]), 9: (CT, [BIG]), 11: (CT, [DEFLATED])}
ANSWERS = {0x0000, 0xA900, 0xC000}


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return the bytes after up to four changes: other bytes, fewer, more, twice, or a length at its extremes."""
    for _ in range(chance.randint(1, 4)):
        at, length = chance.randrange(len(data) + 1), chance.randint(1, 8)
        kind = chance.randrange(6)
        if kind == 0:
            data = data[:at] + chance.randbytes(length) + data[at + length :]
        elif kind == 1:
            data = data[:at] + data[at + chance.choice((1, 2, 8, 100)) :]
        elif kind == 2:
            data = data[:at] + chance.randbytes(length) + data[at:]
        elif kind == 3:
            data = data[: at + 64] + data[at:]
        elif kind == 4:
            data = data[:at] + chance.choice((b"\0" * 4, b"\xff" * 4, b"\xff\xff", b"\x7f\xff")) + data[at + 4 :]
        else:
            data = data[: max(at, 1)]
    return data


# ── PDUs ─────────────────────────────────────────────────────────────────────

CONVERSATIONS = [
    store_rq(UID, encode(ct()), fragment=200) + RELEASE,
    ECHO + ECHO + RELEASE,
    store_rq(UID, b"", fragment=10) + b"\7\0\0\0\0\4\0\0\0\0",
]


def send_mutated_pdus(port: int, seed: int, count: int) -> Counter[str]:
    """Open connections on which a request, or what follows it, is mutated; count how each of them ended."""
    chance, ended = random.Random(seed), Counter[str]()
    for _ in range(count):
        request, rest = associate_rq(contexts=CONTEXTS), chance.choice(CONVERSATIONS)
        if chance.random() < 0.5:
            request = mutated(request, chance)
        else:
            rest = mutated(rest, chance)
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(request + rest)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            ended["nothing" if not answer else {2: "accepted", 3: "rejected", 7: "aborted"}[answer[0]]] += 1
            continue
        ended["reset"] += 1
    return ended


# ── datasets ─────────────────────────────────────────────────────────────────


@cache
def samples() -> list[tuple[int, bytes]]:
    """Return datasets with the context that they belong to."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    nested = ct(ReferencedSeriesSequence=[ct(PixelData=None, ReferencedImageSequence=[ct(PixelData=None)])])
    found = [(1, encode(nested)), (7, encode(nested, IMPLICIT)), (9, encode(nested, BIG))]
    found.append((11, packer.compress(encode(nested)) + packer.flush()))
    for name in ("ct_sts003_lowdose", "mr_brain_epi_ge750", "mr_breast_ucsf06"):
        data, syntax = encoded_dataset(min((DATA / name).glob("*.dcm")))
        found += [(1 if syntax == EXPLICIT else 7, data[:8000])]
    return found


def send_mutated_datasets(port: int, seed: int, count: int) -> Counter[str]:
    """Send datasets over one association, every fiftieth as it should be; count the statuses."""
    chance, statuses = random.Random(seed), Counter[str]()
    with Scu(port, contexts=CONTEXTS, timeout_s=60) as scu:
        for i in range(count):
            if i % 50 == 0:
                uid = f"1.2.826.0.1.3680043.2.1125.12.{seed}.{i}"
                assert scu.store(uid, encode(ct(SOPInstanceUID=uid))).status == 0x0000
                continue
            number, data = chance.choice(samples())
            statuses[f"{scu.store(UID, mutated(data, chance), context=number).status:#06x}"] += 1
        scu.release()
    return statuses
