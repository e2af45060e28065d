"""TLS settings for connections to engines and registries: no other module decides what is trusted."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from fusefs.text import printable

if TYPE_CHECKING:
    import ssl


class Tls(NamedTuple):
    """Encryption settings.  imgfs never connects without encryption to an engine that has them."""

    ca: os.PathLike[str] | None
    """File of the only trusted certificates (default: the system's)."""
    client: tuple[os.PathLike[str], os.PathLike[str]] | None
    """Files of our certificate and its key."""
    verify: bool
    """False: any certificate is accepted."""
    more: tuple[os.PathLike[str], ...] = ()
    """Files of certificates that are trusted besides."""
    more_clients: tuple[tuple[os.PathLike[str], os.PathLike[str]], ...] = ()
    """Files of further certificates of ours, for servers that take no key of the type of the first."""

    def versions(self) -> tuple[tuple[int, int] | None, ...]:
        """Return the number and the time of change of each file, None for one that cannot be read."""
        pairs = (self.client, *self.more_clients)
        files = (self.ca, *self.more, *(file for pair in pairs if pair for file in pair))
        return tuple(_version(file) for file in files if file is not None)


def _version(file: os.PathLike[str]) -> tuple[int, int] | None:
    try:
        stat = os.stat(file)
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def ssl_context(tls: Tls | None) -> "ssl.SSLContext":
    """Return the TLS context for a server with the settings *tls*; None is an ``https://`` address without settings.

    If `Tls.ca` is set, only that file is trusted, as in the docker command; otherwise the system's authorities, of
    which OpenSSL's SSL_CERT_FILE and SSL_CERT_DIR may name others.  Variables such as REQUESTS_CA_BUNDLE are ignored.
    With any version of Python, chains are judged as by Go, in which docker and skopeo are written: a trusted
    certificate need not be that of a root, and authorities need not follow all of RFC 5280 (state keyUsage, say).
    Raises OSError, whose strerror names the file, for an unreadable or malformed one.
    """
    import ssl  # noqa: PLC0415 - files and sockets need no TLS

    if tls and tls.ca and tls.verify:
        with _naming(tls.ca):
            context = ssl.create_default_context(cafile=str(tls.ca))
    else:
        context = ssl.create_default_context()
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if tls is None:
        return context
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for file in tls.more:
        with _naming(file):
            context.load_verify_locations(cafile=str(file))
    for pair in (*reversed(tls.more_clients), tls.client):  # of each type of key, the last one counts
        if pair:
            _load_pair(context, *pair)
    return context


def _load_pair(context: "ssl.SSLContext", certificate: os.PathLike[str], key: os.PathLike[str]) -> None:
    try:
        with _naming(key):
            context.load_cert_chain(certificate, key)
    except OSError:
        import ssl  # noqa: PLC0415 - see above

        with _naming(certificate):  # the error is that of the key only if this file has a certificate
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=str(certificate))
        raise


@contextmanager
def _naming(file: os.PathLike[str]) -> Iterator[None]:
    """Name *file* in an OSError: neither those of OpenSSL nor those of the system do it here."""
    try:
        yield
    except OSError as error:
        why = error.strerror
        said = getattr(error, "reason", None)  # of an ssl.SSLError; None for a file that is no PEM
        if said:
            why = said.replace("_", " ").lower()
        elif hasattr(error, "reason") or error.errno == errno.EINVAL:  # EINVAL: a wrong passphrase, or none
            why = "damaged, encrypted or not in PEM format"
        raise OSError(error.errno, f"{printable(os.fspath(file))}: {why}") from None
