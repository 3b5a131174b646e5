"""Certificates of a trial: authorities, what they issue and what they revoke."""

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from mediqa_node.domain.tls import TlsServer
from mediqa_node.network.tls import fingerprint

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate with its key."""

    certificate: Path
    key: Path

    @property
    def parsed(self) -> x509.Certificate:
        return x509.load_pem_x509_certificates(self.certificate.read_bytes())[0]

    @property
    def fingerprint(self) -> str:
        """Its name in rules and settings."""
        return fingerprint(self.parsed.public_bytes(serialization.Encoding.DER))


class Authority:
    """An authority with its files in a folder of its own."""

    def __init__(self, folder: Path, *, below: "Authority | None" = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._ca = trustme.CA() if below is None else below._ca.create_child_ca()
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    @property
    def parsed(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.file.read_bytes())

    def issue(self, name: str = "node", *names: str, days: float = 300, to: Path | None = None) -> Pair:
        """Issue a certificate; `names` are DNS names and IP addresses, `days` may be negative: it has expired then."""
        folder = to or self.folder
        folder.mkdir(parents=True, exist_ok=True)
        now = datetime.datetime.now(datetime.UTC)
        issued = self._ca.issue_cert(
            *(names or ("localhost", "127.0.0.1")), not_before=now - 900 * _DAY, not_after=now + days * _DAY
        )
        pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        pair.certificate.write_bytes(chain)
        issued.private_key_pem.write_to_path(str(pair.key))
        pair.key.chmod(0o600)
        return pair

    def revoke(self, *pairs: "Pair | Authority", days: float = 1) -> Path:
        """Return a revocation list with these certificates."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.parsed.subject)
        builder = builder.last_update(now - 30 * _DAY).next_update(now + days * _DAY)
        for pair in pairs:
            entry = x509.RevokedCertificateBuilder().serial_number(pair.parsed.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now - _DAY).build())
        key = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        file = self.folder / "crl.pem"
        file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))  # type: ignore[arg-type]
        return file


def server(pair: Pair, authority: Authority | None = None, *, crl: Path | None = None) -> TlsServer:
    """Return the settings of a TLS port."""
    return TlsServer(certificate=pair.certificate, key=pair.key, ca=authority.file if authority else None, crl=crl)


def client(authority: Authority, pair: Pair | None = None) -> ssl.SSLContext:
    """Return what a careful client of another make uses: Python's own defaults."""
    context = ssl.create_default_context(cafile=str(authority.file))
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context
