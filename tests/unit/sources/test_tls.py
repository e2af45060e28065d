"""Which certificates are trusted, and which of ours are sent."""

import contextlib
import datetime as dt
import re
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fusefs.sources.tls import Tls, ssl_context
from tests.support.certificates import Authority


class Chain:
    """A root, an authority below it and a server, whose certificates state no more than they must."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        root = self._write("root", None, is_authority=True)
        authority = self._write("authority", root, is_authority=True)
        self._write("server", authority, is_authority=False)

    def path(self, name: str) -> Path:
        """Return the file of the certificate and its key."""
        return self._folder / f"{name}.pem"

    def _write(
        self, name: str, issuer: tuple[str, ec.EllipticCurvePrivateKey] | None, *, is_authority: bool
    ) -> tuple[str, ec.EllipticCurvePrivateKey]:
        key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer[0] if issuer else name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )
        if is_authority:
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=False)
        else:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        certificate = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
        pem, format_, none = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.path(name).write_bytes(certificate.public_bytes(pem) + key.private_bytes(pem, format_, none))
        return name, key


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> ssl.SSLObject:
    """Connect *client* to *server* as localhost and return the server's side.  Raises SSLError."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(down, up, server_hostname="localhost")
    answering = server.wrap_bio(up, down, server_side=True)
    for side in (asking, answering) * 3:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return answering


def listening(certificate: Path, key: Path | None = None) -> ssl.SSLContext:
    """Return the context of a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@pytest.mark.parametrize("trusted", ["authority", "server"])
@pytest.mark.parametrize("is_only", [True, False])
def test_a_trusted_certificate_is_enough_whatever_it_leaves_out(tmp_path: Path, trusted: str, *, is_only: bool) -> None:
    chain = Chain(tmp_path)
    path = chain.path(trusted)
    tls = Tls(path, None, verify=True) if is_only else Tls(None, None, verify=True, more=(path,))
    shake_hands(ssl_context(tls), listening(chain.path("server")))


def test_the_rules_of_trust_are_those_of_go_with_each_python() -> None:
    for tls in (None, Tls(None, None, verify=True)):
        flags = ssl_context(tls).verify_flags
        assert flags & ssl.VERIFY_X509_PARTIAL_CHAIN
        assert not flags & ssl.VERIFY_X509_STRICT


def test_another_certificate_is_not_trusted(tmp_path: Path) -> None:
    chain, other = Chain(tmp_path), Authority(tmp_path / "other")
    for tls in (None, Tls(other.ca, None, verify=True), Tls(None, None, verify=True, more=(other.ca,))):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(ssl_context(tls), listening(chain.path("server")))


def test_the_first_certificate_of_ours_is_sent(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    first, *others = (authority.issue(name, server=False) for name in ("first", "second", "third"))
    server = listening(*authority.issue("server", server=True))
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(authority.ca)
    tls = Tls(authority.ca, first, verify=True, more_clients=tuple(others))
    seen = shake_hands(ssl_context(tls), server).getpeercert()
    assert seen is not None
    assert seen["subject"] == ((("commonName", "first"),),)


NO_PEM = "damaged, encrypted or not in PEM format"


@pytest.mark.parametrize(
    ("damaged", "text", "why"),
    [
        ("ca", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", NO_PEM),
        ("ca", "nothing", "no certificate or crl found"),
        ("ca", None, "No such file or directory"),
        ("certificate", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", NO_PEM),
        ("certificate", "nothing", "no certificate or crl found"),
        ("certificate", None, "No such file or directory"),
        ("key", "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n", NO_PEM),
        ("key", "another", "key values mismatch"),
        ("key", None, "No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, damaged: str, text: str | None, why: str) -> None:
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.issue("ours", server=False)
    path = {"ca": Path(authority.ca), "certificate": Path(certificate), "key": Path(key)}[damaged]
    settings = (
        Tls(None, (certificate, key), verify=True, more=(authority.ca,)),
        Tls(authority.ca, None, verify=True, more_clients=((certificate, key),)),
    )
    if text == "another":
        text = Path(authority.issue("another", server=False)[1]).read_text()
    path.unlink()
    if text is not None:
        path.write_text(text)
    for tls in settings:
        with pytest.raises(OSError, match=f"^.Errno [0-9]+. {re.escape(str(path))}: {why}$"):
            ssl_context(tls)
