"""Who may read an image: users, tokens, helpers, certificates; and who never sees a secret."""

import http.server
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.certificates import Authority
from tests.support.fake_engine import serving
from tests.support.fault_proxy import Proxy, fault_proxy, status
from tests.support.layouts import Layout
from tests.support.mounts import Bench
from tests.support.registries import (
    AUTH,
    HTPASSWD,
    PASSWORD,
    USER,
    Registry,
    TokenServer,
    push,
    registry,
    token_server,
)
from tests.support.requirements import ROOT, need


@pytest.fixture(name="layout")
def layout_fixture(server: Registry) -> Layout:
    """Push the image team/app:1 and return its layout."""
    layout = Layout()
    push(layout.list(layout.image(compression="gzip"), "1"), server)
    return layout


@pytest.fixture(name="private")
def private_fixture(server: Registry, layout: Layout) -> Iterator[Registry]:
    """Give a registry with the same images, for a user with a password."""
    assert layout
    passwords = server.folder / "htpasswd"
    passwords.write_text(f"{HTPASSWD}\n")
    with registry(server.folder, htpasswd={"realm": "the tests", "path": str(passwords)}) as made:
        yield made


@pytest.fixture(name="tokens")
def tokens_fixture(tmp_path: Path) -> Iterator[TokenServer]:
    """Give a token server."""
    with token_server(tmp_path) as made:
        yield made


@pytest.fixture(name="guarded")
def guarded_fixture(server: Registry, layout: Layout, tokens: TokenServer) -> Iterator[Registry]:
    """Give a registry with the same images, which takes tokens."""
    assert layout
    with registry(server.folder, **tokens.auth) as made:
        yield made


def authfile(imgfs: Bench, host: str, **entry: str) -> Path:
    """Write a file with credentials for *host* and return it."""
    path = imgfs.folder / "auth.json"
    path.write_text(json.dumps({"auths": {host: entry}}))
    return path


def motd(imgfs: Bench, image: str, *options: str | Path, **environment: object) -> str:
    """Return the file of the image's last layer, read with *options*, or the error."""
    done = imgfs.run("cat", *options, f"{image}:/etc/motd", **environment)
    assert (done.status == 0) is (done.err == "")
    assert PASSWORD not in done.err
    assert AUTH not in done.err
    return done.out or done.err


def test_a_user_with_a_password_reads_a_private_image(imgfs: Bench, private: Registry) -> None:
    image = private.image()
    assert motd(imgfs, image) == (
        f"imgfs: the registry {private.host} denies access to team/app: it asks for a user and a password; "
        f"skopeo login {private.host} or docker login {private.host} logs in\n"
    )
    assert motd(imgfs, image, "--authfile", authfile(imgfs, f"{private.host}/team", auth=AUTH)) == "hello\n"
    assert private.requests()[-1].endswith("200")
    wrong = authfile(imgfs, private.host, username=USER, password="wrong")
    done = imgfs.run("cat", "--no-cache", "--authfile", wrong, f"{image}:/etc/motd")
    assert (done.status, "denies access to team/app:1: 401 Unauthorized" in done.err) == (4, True)
    assert "wrong" not in done.err


@pytest.mark.parametrize("variable", ["", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "HOME", "CONTAINERS_REGISTRIES_CONF"])
def test_a_mount_finds_credentials_that_are_elsewhere_or_another_users(
    imgfs: Bench, private: Registry, layout: Layout, *, variable: str
) -> None:
    need(ROOT)
    made = authfile(imgfs, private.host, auth=AUTH).rename(imgfs.folder / "config.json")
    made.chmod(0o600)
    os.chown(made, 65534, 65534)
    image = f"{private.image()}@{layout.entries[0]['digest']}"
    assert imgfs.run("inspect", "--authfile", made, image).status == 0  # what is cached needs no credentials
    options = [] if variable else ["--authfile", "config.json"]
    if variable in ("HOME", "CONTAINERS_REGISTRIES_CONF"):  # nobody else may look into the folder
        folder = imgfs.folder / "home" / ".docker"
        folder.mkdir(parents=True)
        made.rename(folder / "config.json")
        (folder.parent / "empty.conf").touch()
        folder.parent.chmod(0o700)
        os.chown(folder.parent, 65534, 65534)
        imgfs.environment |= {"HOME": "home", variable: "home" if variable == "HOME" else "home/empty.conf"}
    elif variable:
        imgfs.environment[variable] = "." if variable == "DOCKER_CONFIG" else "config.json"
    assert (imgfs.mount(image, *options) / "rootfs" / "etc" / "motd").read_text() == "hello\n"


def test_the_docker_commands_configuration_and_helpers_are_used(imgfs: Bench, private: Registry) -> None:
    image, home = private.image(), Path(imgfs.environment["HOME"])
    inline = json.dumps({"auths": {private.host: {"auth": AUTH}}})
    assert motd(imgfs, image, "--no-cache", DOCKER_AUTH_CONFIG=inline) == "hello\n"
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text(inline)
    assert motd(imgfs, image, "--no-cache") == "hello\n"
    helper = imgfs.folder / "docker-credential-tests"
    answer = json.dumps({"Username": USER, "Secret": PASSWORD})
    helper.write_text(f'#!/bin/sh\nread server; [ "$1 $server" = "get {private.host}" ] && echo \'{answer}\'\n')
    helper.chmod(0o755)
    (home / ".docker" / "config.json").write_text(json.dumps({"credHelpers": {private.host: "tests"}}))
    path = f"{imgfs.folder}:{os.environ['PATH']}"
    assert motd(imgfs, image, "--no-cache", PATH=path) == "hello\n"
    assert motd(imgfs, image, "--no-cache") == (
        "imgfs: cannot run docker-credential-tests: No such file or directory\n"
    )


def test_a_token_is_asked_for_once(imgfs: Bench, guarded: Registry, tokens: TokenServer) -> None:
    assert motd(imgfs, guarded.image()) == "hello\n"
    assert tokens.asked == [{"service": ["the registry"], "scope": ["repository:team/app:pull"], "user": [""]}]
    statuses = [line.rpartition(" ")[2] for line in guarded.requests()]
    assert (statuses[:2], set(statuses[2:])) == (["401", "200"], {"200"})


def test_the_token_is_that_of_the_user(imgfs: Bench, guarded: Registry, tokens: TokenServer) -> None:
    tokens.users = (AUTH,)
    assert f"127.0.0.1:{tokens.url.rpartition(':')[2]} gives no token" in motd(imgfs, guarded.image())
    assert motd(imgfs, guarded.image(), "--authfile", authfile(imgfs, guarded.host, auth=AUTH)) == "hello\n"
    assert [asked["user"] for asked in tokens.asked] == [[""], [AUTH]]


def test_an_identity_token_is_exchanged(imgfs: Bench, guarded: Registry, tokens: TokenServer) -> None:
    entry = {"auth": AUTH, "identitytoken": "the identity"}
    assert motd(imgfs, guarded.image(), "--authfile", authfile(imgfs, guarded.host, **entry)) == "hello\n"
    (asked,) = tokens.asked
    wanted = {"grant_type": ["refresh_token"], "refresh_token": ["the identity"], "client_id": ["imgfs"]}
    assert wanted.items() <= asked.items()
    assert asked["user"] == [""]


def test_a_token_that_dies_under_a_mount_is_renewed_once(imgfs: Bench, guarded: Registry, tokens: TokenServer) -> None:
    with fault_proxy(guarded.host) as proxy:
        mounted = imgfs.mount(proxy.image())
        assert len(tokens.asked) == 1
        challenge = f'Bearer realm="{tokens.url}/token",service="the registry",scope="repository:team/app:pull"'
        proxy.faults["blobs/"] = [status(401, WWW_Authenticate=challenge)] * 1
        assert (mounted / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"
        assert len(tokens.asked) == 2


def test_no_authorization_is_sent_where_a_registry_redirects_to(
    imgfs: Bench, server: Registry, private: Registry, layout: Layout
) -> None:
    seen: list[dict[str, str]] = []

    class Storage(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers.items()))
            data = layout.files["blobs/sha256/" + self.path.partition("?")[0][1:]]
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    assert server
    storage = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Storage)
    with serving(storage), fault_proxy(private.host) as proxy:
        where = f"http://127.0.0.1:{storage.server_address[1]}"
        for path in layout.files:
            digest = path.rpartition("/")[2]
            proxy.always[f"blobs/sha256:{digest}"] = status(307, Location=f"{where}/{digest}?X-Amz-Signature=secret")
        assert motd(imgfs, proxy.image(), "--authfile", authfile(imgfs, proxy.host, auth=AUTH)) == "hello\n"
        assert len(seen) == 3  # the config, and the layers down to the one that has the file
        assert not any("Authorization" in headers for headers in seen)
        storage_error = _error_of(imgfs, proxy, where)
    assert "Signature" not in storage_error


def _error_of(imgfs: Bench, proxy: Proxy, where: str) -> str:
    for key in list(proxy.always):
        proxy.always[key] = status(307, Location=f"{where}/gone/{key}?X-Amz-Signature=secret")
    options = ("--no-cache", "--timeout", "2", "--authfile", imgfs.folder / "auth.json")
    done = imgfs.run("cat", *options, f"{proxy.image()}:/etc/motd")
    assert done.status == 3
    return done.err


def test_no_secret_is_in_the_table_of_mounts_the_log_or_an_attribute(imgfs: Bench, private: Registry) -> None:
    mounted = imgfs.mount(private.image(), "--authfile", authfile(imgfs, private.host, auth=AUTH))
    assert (mounted / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"
    pid = imgfs.serving(mounted)
    shown = Path("/proc/self/mountinfo").read_text(errors="replace") + imgfs.log.read_text()
    shown += Path(f"/proc/{pid}/cmdline").read_text() + Path(f"/proc/{pid}/environ").read_text()
    shown += "".join(str(os.getxattr(mounted, name)) for name in os.listxattr(mounted))
    shown += imgfs.run("list", "--json").out + imgfs.run("cache", "list", "--json").out
    shown += subprocess.run(["grep", "-rl", PASSWORD, imgfs.cache], capture_output=True, text=True, check=False).stdout
    assert PASSWORD not in shown
    assert AUTH not in shown


def test_an_authority_of_ones_own_is_trusted_by_certs_d(imgfs: Bench, server: Registry, layout: Layout) -> None:
    assert layout
    authority = Authority(imgfs.folder / "authority")
    with registry(server.folder, tls=authority.issue("server", server=True)) as made:
        error = motd(imgfs, made.image())
        assert error.startswith(f"imgfs: cannot trust the registry {made.host}: ")
        assert "certificate verify failed" in error
        assert made.requests() == []  # nor was it asked without encryption
        assert motd(imgfs, made.image(), "--insecure", "--no-cache") == "hello\n"
        trusted = Path(imgfs.environment["HOME"], ".config", "containers", "certs.d", made.host)
        trusted.mkdir(parents=True)
        (trusted / "ours.crt").write_bytes(authority.ca.read_bytes())
        assert motd(imgfs, made.image()) == "hello\n"
        mounted = imgfs.mount(made.image(), "--no-cache")  # begins to talk TLS before it forks, and goes on after it
        assert (mounted / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"


class Guarded(NamedTuple):
    """A registry that speaks TLS, and the token server to which it sends everyone, which also stores its blobs."""

    registry: Proxy
    other: Proxy

    def read(self, imgfs: Bench, *options: str, **environment: object) -> str:
        """Return the file of the image, or the error."""
        challenge = f'Bearer realm="https://{self.other.host}/token",service="the registry"'
        self.registry.faults["/v2/"] = [status(401, WWW_Authenticate=challenge)]
        self.other.requests()
        return motd(imgfs, self.registry.image(), "--no-cache", *options, **environment)


@pytest.fixture(name="behind")
def behind_fixture(imgfs: Bench, server: Registry, layout: Layout) -> Iterator[Guarded]:
    """Give a registry with the same images whose authority, "registry", is not that of the other, "other"."""
    assert layout
    pairs = [Authority(imgfs.folder / name).issue("server", server=True) for name in ("registry", "other")]
    with fault_proxy(server.host, tls=pairs[0]) as made, fault_proxy(server.host, tls=pairs[1]) as other:
        other.always["/token"] = status(200, b'{"token": "t"}')
        made.always["/blobs/"] = lambda asked, reply: status(307, Location=f"https://{other.host}{asked.path}")(
            asked, reply
        )
        yield Guarded(made, other)


def trust(imgfs: Bench, authority: str, host: str) -> None:
    """Trust the *authority* for *host*."""
    folder = Path(imgfs.environment["HOME"], ".config", "containers", "certs.d", host)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{authority}.crt").write_bytes((imgfs.folder / authority / "ca.pem").read_bytes())


def test_certs_d_of_a_registry_are_for_its_token_server_and_its_storage_too(imgfs: Bench, behind: Guarded) -> None:
    trust(imgfs, "registry", behind.registry.host)
    error, host, other = behind.read(imgfs), behind.registry.host, behind.other.host
    assert error.startswith(f"imgfs: cannot trust {other}: ")
    assert "certificate verify failed" in error
    advice = f"put the authority of {other} into /etc/containers/certs.d/{host}/, or use --insecure"
    assert error.endswith(f"; the registry {host} leads there; {advice}\n")
    trust(imgfs, "other", behind.registry.host)
    assert behind.read(imgfs) == "hello\n"
    assert behind.other.requests()[0].startswith("GET /token?")


def test_certs_d_of_a_token_server_are_used(imgfs: Bench, behind: Guarded) -> None:
    trust(imgfs, "registry", behind.registry.host)
    trust(imgfs, "other", behind.other.host)
    assert behind.read(imgfs) == "hello\n"


def test_the_token_server_and_the_storage_of_an_insecure_registry_are_so_too(imgfs: Bench, behind: Guarded) -> None:
    configuration = imgfs.folder / "registries.conf"
    configuration.write_text(f'[[registry]]\nlocation = "{behind.registry.host}"\ninsecure = true\n')
    assert behind.read(imgfs, CONTAINERS_REGISTRIES_CONF=configuration) == "hello\n"
    assert behind.read(imgfs, "--insecure") == "hello\n"
    assert "cannot trust the registry" in behind.read(imgfs)


def test_credentials_go_to_no_other_machine_without_encryption(imgfs: Bench, proxy: Proxy, layout: Layout) -> None:
    assert layout
    proxy.always["/v2/"] = status(401, WWW_Authenticate='Bearer realm="http://tokens.invalid/token"')
    options = ("--authfile", authfile(imgfs, proxy.host, auth=AUTH))
    error = motd(imgfs, proxy.image(), *options)
    assert f"{proxy.host} denies access to team/app: its token server http://tokens.invalid/token is not https" in error
    assert "cannot reach tokens.invalid: " in motd(imgfs, proxy.image(), "--insecure", *options)


def test_a_mirror_is_asked_first_and_the_registry_then(imgfs: Bench, server: Registry, layout: Layout) -> None:
    assert layout
    configuration = imgfs.folder / "registries.conf"
    with fault_proxy(server.host) as mirror:
        configuration.write_text(
            f'[[registry]]\nprefix = "registry.invalid/mirrored"\nlocation = "{server.host}/team"\n'
            f'[[registry.mirror]]\nlocation = "{mirror.host}/team"\n'
            '[[registry]]\nprefix = "*.blocked.invalid"\nblocked = true\n'
        )
        image, named = "docker://registry.invalid/mirrored/app:1", {"CONTAINERS_REGISTRIES_CONF": configuration}
        assert motd(imgfs, image, "--no-cache", **named) == "hello\n"
        assert len(mirror.requests()) == 4
        mirror.always["/v2/"] = status(404)
        assert motd(imgfs, image, "--no-cache", **named) == "hello\n"
    blocked = motd(imgfs, "docker://a.blocked.invalid/x:1", **named)
    assert blocked == "imgfs: a.blocked.invalid/x:1 is blocked by the configuration in registries.conf\n"
