"""Real registries on loopback: Debian's docker-registry, and a token server for it."""

import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.support.certificates import Authority
from tests.support.fake_engine import serving
from tests.support.layouts import Layout
from tests.support.processes import until
from tests.support.requirements import need

_REQUEST = re.compile(rb'"(GET|HEAD|POST) (/[^ "]*) HTTP/1\.1" ([0-9]{3})')
USER, PASSWORD = "someone", "a:secret"
HTPASSWD = f"{USER}:$2y$05$abcdefghijklmnopqrstuulzITFXwzymEQHrMFHqnEHvRQyATqn8."
"""The line of htpasswd(1) for them: bcrypt, which alone docker-registry takes."""
AUTH = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@dataclass
class Registry:
    """A docker-registry that runs."""

    host: str
    """As in a reference: ``localhost:PORT``."""
    folder: Path
    """Its storage."""
    log: Path
    process: subprocess.Popen[bytes]
    _seen: int = 0

    def image(self, name: str = "team/app:1") -> str:
        """Return an image in it as an IMAGE argument."""
        return f"docker://{self.host}/{name}"

    def requests(self) -> list[str]:
        """Return the requests that it has answered since the last call, as ``METHOD path status``.

        Digests are shortened to 8 digits, and the name of the repository is left out.
        """
        data = self.log.read_bytes()
        found = [b" ".join(match).decode() for match in _REQUEST.findall(data[self._seen :])]
        self._seen = len(data)
        shortened = (re.sub(r"(sha[0-9]+):([0-9a-f]{8})[0-9a-f]*", r"\2", line) for line in found)
        return [re.sub(r"/v2/.*/(manifests|blobs)/", r"\1/", line) for line in shortened]

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait(10)


@contextlib.contextmanager
def registry(
    folder: Path,
    *,
    tls: tuple[Path, Path] | None = None,
    port: int | None = None,
    of: Registry | None = None,
    storage: Mapping[str, Any] | None = None,
    **auth: Mapping[str, Any],
) -> Iterator[Registry]:
    """Run a registry with its storage in *folder*, or in another *storage*, as its configuration describes one.

    *of*: a registry from which it fetches what it does not have.  *auth* is the part of its configuration of this name.
    """
    need("docker-registry")
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    settings: dict[str, Any] = {
        "version": 0.1,
        "storage": storage or {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if tls is not None:
        settings["http"]["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
    if of is not None:
        settings["proxy"] = {"remoteurl": f"http://{of.host}"}
    if auth:
        settings["auth"] = auth
    configuration, log = folder / f"{port}.yml", folder / f"{port}.log"
    configuration.write_text(json.dumps(settings))  # JSON is YAML
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(configuration)], stdout=output, stderr=output, env={"PATH": "/usr/bin"}
        )
    made = Registry(f"localhost:{port}", folder, log, process)
    try:
        until(lambda: _accepts(port), "the registry listens")
        yield made
    finally:
        made.stop()


def free_port() -> int:
    """Return a port of loopback that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def push(layout: Layout, to: Registry, name: str = "team/app:1") -> str:
    """Push all blobs of *layout* and, as *name*, its only entry; return the digest of that entry.

    *to* asks for no authorization.
    """
    repository, _, tag = name.rpartition(":")
    documents = {descriptor["digest"]: descriptor for descriptor in _manifests(layout)}
    for path, data in layout.files.items():
        digest = path.removeprefix("blobs/").replace("/", ":")
        if path.startswith("blobs/") and digest not in documents:
            _push_blob(to, repository, digest, data)
    (entry,) = layout.entries
    for digest, descriptor in documents.items():  # those below an index come before it
        data = layout.files[f"blobs/{digest.replace(':', '/')}"]
        _send(to, "PUT", f"/v2/{repository}/manifests/{digest}", data, descriptor["mediaType"])
        if digest == entry["digest"]:
            _send(to, "PUT", f"/v2/{repository}/manifests/{tag}", data, descriptor["mediaType"])
    to.requests()
    return str(entry["digest"])


def push_layer(layout: Layout, to: Registry) -> str:
    """Push the image team/app:1, and return the hexadecimal digits of its layer: it is the largest blob."""
    push(layout, to)
    return hashlib.sha256(max(layout.files.values(), key=len)).hexdigest()


def _manifests(layout: Layout) -> Iterator[dict[str, Any]]:
    def below(descriptor: dict[str, Any]) -> Iterator[dict[str, Any]]:
        document = json.loads(layout.files[f"blobs/{descriptor['digest'].replace(':', '/')}"])
        for each in document.get("manifests", ()):
            yield from below(each)
        yield descriptor

    for entry in layout.entries:
        yield from below(entry)


def _push_blob(to: Registry, repository: str, digest: str, data: bytes) -> None:
    location = _send(to, "POST", f"/v2/{repository}/blobs/uploads/", b"")
    parts = urlsplit(location)
    query = f"{parts.query}&{urlencode({'digest': digest})}"
    _send(to, "PUT", f"{parts.path}?{query}", data, "application/octet-stream")


def _send(to: Registry, method: str, path: str, data: bytes, media_type: str = "application/json") -> str:
    connection = http.client.HTTPConnection(to.host.replace("localhost", "127.0.0.1"), timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, data, {"Content-Type": media_type})
        answer = connection.getresponse()
        assert answer.status < 300, (method, path, answer.status, answer.read())
        return answer.headers.get("Location", "")


@dataclass
class TokenServer:
    """A token server, and what it was asked for."""

    url: str
    certificate: Path
    lifetime: float = 60.0
    """Seconds that a token is valid."""
    stated: int | None = None
    """The lifetime that it states."""
    asked: list[dict[str, list[str]]] = field(default_factory=list)
    """The parameters of each request, and the user as ``user``."""
    users: tuple[str, ...] = ("", AUTH)
    """Who gets a token: nobody's name is empty."""
    kinds: tuple[str, ...] = ("repository", "registry")
    """What tokens are for: without ``registry``, nobody gets the list of repositories."""

    @property
    def auth(self) -> dict[str, Any]:
        """The configuration of a registry that takes its tokens."""
        return {
            "token": {
                "realm": f"{self.url}/token",
                "service": "the registry",
                "issuer": "the tests",
                "rootcertbundle": str(self.certificate),
            }
        }


@contextlib.contextmanager
def token_server(folder: Path) -> Iterator[TokenServer]:
    """Run a token server on loopback, without TLS."""
    authority = Authority(folder / "tokens")
    certificate, key = authority.issue("server", server=True)
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    signing: ec.EllipticCurvePrivateKey = private
    der = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(serialization.Encoding.DER)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(parse_qs(urlsplit(self.path).query))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(parse_qs(body.decode()) | {"method": ["POST"]})

        def _answer(self, asked: dict[str, list[str]]) -> None:
            user = self.headers.get("Authorization", "").removeprefix("Basic ")
            made.asked.append(asked | {"user": [user]})
            if user not in made.users:
                self.send_error(401)
                return
            access = []
            for scope in asked.get("scope", ()):
                kind, name, actions = scope.split(":")
                if kind in made.kinds:
                    access.append({"type": kind, "name": name, "actions": actions.split(",")})
            token = _signed(signing, der, {"aud": asked["service"][0], "access": access}, made.lifetime)
            document = {"token": token} | ({} if made.stated is None else {"expires_in": made.stated})
            data = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = TokenServer(f"http://127.0.0.1:{server.server_address[1]}", authority.ca)
    with serving(server):
        yield made


def _signed(key: ec.EllipticCurvePrivateKey, der: bytes, claims: dict[str, Any], lifetime: float) -> str:
    """Return a JSON web token (RFC 7519, ES256)."""
    now = time.time()
    header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
    claims |= {
        "iss": "the tests",
        "sub": "",
        "nbf": int(now) - 60,
        "iat": int(now),
        "exp": int(now + lifetime),
        "jti": "1",
    }
    text = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
    r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
