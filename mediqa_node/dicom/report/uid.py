"""Deterministic UIDs: the same report built twice has the same UID."""

import hashlib
import json


def deterministic_uid(*parts: str) -> str:
    """Return `2.25.` and a UUID (PS3.5 B.2) made of SHA-256 over `parts`: RFC 9562 version 8, variant 10."""
    digest = hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).digest()
    number = int.from_bytes(digest[:16], "big")
    number = number & ~(0xF << 76) | 0x8 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    return f"2.25.{number}"
