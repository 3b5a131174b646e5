"""Keyed pseudonyms: a person, study or scanner has the same key in every export.

Without the key file, pseudonyms can neither be reversed nor tested against a guess, unlike an unkeyed hash of a
Patient ID. They are HMAC-SHA256 (RFC 2104) of one secret, with a derived key for each purpose, so that two kinds of
pseudonym cannot be compared with each other.
"""

import hashlib
import hmac
from base64 import b32encode
from collections.abc import Mapping
from dataclasses import dataclass, field

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """The pseudonyms of identifiers under one secret.

    Attributes:
        secret: KEY_BYTES random bytes; never printed.
    """

    secret: bytes = field(repr=False)

    @property
    def key_id(self) -> str:
        """Identifies the secret, 16 hex digits; exports with a new secret cannot be linked to earlier ones."""
        return self._digest("key id", "").hex()[:16]

    def key(self, domain: str, *parts: str) -> str:
        """Return 80 bits as 16 letters and digits (base32), for one identifier in one domain.

        Args:
            domain: `patient`, `study`, `series`, `device`, ...: equal identifiers in two domains get different keys.
            parts: of the identifier, compared without case and surrounding blanks.
        """
        return b32encode(self._digest(domain, *(part.strip().upper() for part in parts))[:10]).decode()

    def uid(self, uid: str) -> str:
        """Return the replacement of a UID, 128 bits below 2.25 (PS3.5 B.2); equal UIDs get equal replacements."""
        return f"2.25.{int.from_bytes(self._digest('uid', uid.strip())[:16], 'big')}"

    def patient(self, identity: Mapping[str, str]) -> str:
        """Return the key of a patient.

        Args:
            identity: by keyword: PatientID (0010,0020), IssuerOfPatientID (0010,0021) and StudyInstanceUID, which
                stands in for an empty Patient ID: otherwise all such patients would share one key.
        """
        name, issuer = identity.get("PatientID", "").strip(), identity.get("IssuerOfPatientID", "")
        return self.key("patient", issuer, name) if name else self.key("no patient", identity["StudyInstanceUID"])

    def share(self, domain: str, key: str) -> float:
        """Return a number in [0, 1) that is fixed for a key and uniform over keys."""
        return int.from_bytes(self._digest(domain, key)[:6], "big") / 2**48

    def digest(self, domain: str, sha256: str) -> str:
        """Return a keyed digest of a content hash, 64 hex digits: the hash itself would identify the image."""
        return self._digest(domain, sha256).hex()

    def _digest(self, domain: str, *parts: str) -> bytes:
        own = hmac.digest(self.secret, domain.encode(), hashlib.sha256)
        text = "\0".join(f"{len(part)}:{part}" for part in parts)
        return hmac.digest(own, text.encode("utf-8", "surrogateescape"), hashlib.sha256)
