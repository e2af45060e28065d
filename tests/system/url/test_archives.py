"""An archive at a URL is the same image as the file, for few requests and few bytes."""

import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builders import Archive, archive_of, compressed, layer, member, two_images
from tests.support.certificates import Authority
from tests.support.file_server import FileServer, file_server
from tests.support.layouts import LAYOUTS, Layout
from tests.support.mounts import COMMAND, Bench, tree

BIG = layer({f"usr/{number}": random.Random(number).randbytes(36_000) for number in range(1500)})
SMALL = layer({"etc/motd": b"hello\n", "etc/random": random.Random(0).randbytes(2_000_000)})
HELLO = Archive(layers=[layer({"etc/motd": b"hello\n"})])


def _oci_archive() -> bytes:
    layout = Layout()
    return layout.list(layout.image(compression="zstd"), "1").tar()


KINDS: dict[str, Callable[[], bytes]] = {
    **{name: LAYOUTS[name] for name in ("docker save before 25", "docker save since 25", "links")},
    "oci-archive": _oci_archive,
    "compressed as a whole": lambda: compressed(_oci_archive(), "gzip"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_mount_of_a_url_equals_that_of_the_file(imgfs: Bench, server: FileServer, name: str) -> None:
    data = KINDS[name]()
    (imgfs.folder / "app.tar").write_bytes(data)
    there = imgfs.mount(server.put("/some/app.tar", data), at=imgfs.mountpoint("there"))
    assert tree(there) == tree(imgfs.mount(imgfs.folder / "app.tar", at=imgfs.mountpoint("here")))
    assert os.getxattr(there, "user.imgfs.source").decode() == server.url("/some/app.tar")


def test_few_requests_and_bytes_are_enough(imgfs: Bench, server: FileServer) -> None:
    data = Archive(layers=[BIG, SMALL]).data()
    url = server.put("/app.tar", data)
    assert len(data) > 55_000_000
    mounted = imgfs.mount(url)
    blobs = sorted((mounted / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    with blobs[-1].open("rb", buffering=0) as file:
        assert file.read(1) == BIG[:1]
    requests, sent = server.count()
    assert (requests <= 8, sent <= 300_000) == (True, True), (requests, sent)
    assert (mounted / "layers" / "1" / "etc" / "motd").read_bytes() == b"hello\n"
    requests, sent = server.count()
    assert (requests <= 2, sent <= 1.05 * len(SMALL)) == (True, True), (requests, sent)
    assert imgfs.run("cat", f"{url}:/etc/motd").out == "hello\n"
    requests, sent = server.count()
    assert (requests <= 8, sent <= 1.05 * len(SMALL) + 300_000) == (True, True), (requests, sent)


def test_a_lookup_fetches_the_layers_from_the_top_down_to_the_one_that_decides(
    imgfs: Bench, server: FileServer
) -> None:
    etc = member("etc/", typeflag=b"5")
    top, middle = etc + layer({"etc/motd": b"hello\n"}), etc + SMALL
    mounted = imgfs.mount(server.put("/app.tar", Archive(layers=[BIG, middle, top]).data()))
    server.count()
    assert (mounted / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"
    requests, sent = server.count()
    assert (requests <= 2, sent <= 1.05 * len(top)) == (True, True), (requests, sent)
    assert len((mounted / "rootfs" / "etc" / "random").read_bytes()) == 2_000_000
    requests, sent = server.count()
    assert (requests <= 2, sent <= 1.05 * len(middle)) == (True, True), (requests, sent)
    assert sorted(os.listdir(mounted / "rootfs")) == ["etc", "usr"]
    assert len(os.listdir(mounted / "rootfs" / "usr")) == 1500
    requests, sent = server.count()
    assert (requests <= 2, sent <= 1.05 * len(BIG)) == (True, True), (requests, sent)


def test_each_command_takes_a_url(imgfs: Bench, server: FileServer) -> None:
    url = server.put("/app.tar", HELLO.data())
    assert imgfs.run("cat", f"{url}:/etc/motd").out == "hello\n"
    assert imgfs.run("ls", f"{url}:/etc").out == "motd\n"
    assert imgfs.run("diff", url, url).out == ""
    assert "/etc/motd" in imgfs.run("which", url, "/etc/motd").out
    assert json.loads(imgfs.run("inspect", "--json", url).out)["name"] == url
    assert imgfs.run("cat", "--verify", f"{url}:/etc/motd").out == "hello\n"
    server.count()
    done = imgfs.run("__complete", "mount", url)
    assert (done.status, server.count()) == (0, (0, 0))
    done = imgfs.run("cat", "--offline", f"{url}:/etc/motd")
    assert (done.status, server.count()) == (4, (0, 0))


def test_one_of_several_images_is_chosen_behind_the_url(imgfs: Bench, server: FileServer) -> None:
    first, other = HELLO, Archive(layers=[layer({"etc/motd": b"other\n"})])
    blobs = dict.fromkeys((*first.blobs(), *other.blobs()))
    items = [first.item() | {"RepoTags": ["a:1"]}, other.item() | {"RepoTags": ["b:1"]}]
    url = server.put("/app.tar", archive_of(*blobs, member("manifest.json", json.dumps(items).encode())))
    assert imgfs.run("cat", f"docker-archive:{url}:b:1:/etc/motd").out == "other\n"
    assert imgfs.run("cat", f"docker-archive:{url}:@0:/etc/motd").out == "hello\n"
    done = imgfs.run("cat", f"{url}:/etc/motd")
    assert (done.status, f"choose with docker-archive:{url}:REF" in done.err) == (4, True)


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_the_hint_for_several_images_works_for_a_url(imgfs: Bench, server: FileServer, kind: str) -> None:
    layout = Layout()
    layout.list(layout.image(), "v1").list(layout.image(compression="gzip"), "v2")
    data, ref = (layout.tar(), "v2") if kind == "oci" else (two_images(), "b:1")
    done = imgfs.run("ls", server.put("/some:app.tar", data) + "?secret")
    hint = f"{kind}-archive:{server.url('/some%3Aapp.tar')}?…:REF"
    assert (done.status, f"with {hint}" in done.err) == (4, True), done
    server.put("/some%3Aapp.tar", data)
    assert imgfs.run("ls", hint.replace("?…:REF", f":{ref}")).status == 0


@pytest.mark.parametrize("sized", [True, False])
def test_a_server_without_ranges_sends_the_archive_once(imgfs: Bench, server: FileServer, *, sized: bool) -> None:
    server.ranges, server.sized = False, sized
    data = Archive(layers=[SMALL]).data()
    mounted = imgfs.mount(server.put("/app.tar", data))
    assert (mounted / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"
    assert server.count() == (1, len(data))


def test_a_fully_compressed_archive_is_fetched_once(imgfs: Bench, server: FileServer) -> None:
    data = compressed(Archive(layers=[SMALL]).data(), "gzip")
    url = server.put("/app.tgz", data)
    assert imgfs.run("cat", f"{url}:/etc/motd").out == "hello\n"
    assert server.count() == (2, len(data))


@pytest.mark.parametrize("size", [10, 60_000])
def test_thousands_of_members_take_few_requests(imgfs: Bench, server: FileServer, size: int) -> None:
    count = 10_000 if size == 10 else 1_000
    others = (member(f"others/{number}", bytes(size)) for number in range(count))
    data = archive_of(*others, HELLO.data())
    assert imgfs.run("cat", f"{server.put('/app.tar', data)}:/etc/motd").out == "hello\n"
    requests, sent = server.count()
    assert (requests <= 32, sent <= 1.01 * len(data)) == (True, True), (requests, sent)


def test_a_signature_in_the_url_is_not_shown(imgfs: Bench, server: FileServer) -> None:
    url = server.put("/app.tar", HELLO.data())
    done = imgfs.run("mount", "--log-file", imgfs.log, f"{url}?signature=secret", imgfs.mountpoint())
    assert done.err.startswith(f"imgfs: mounted {url}?… on ")
    listed = imgfs.run("list", "--json").out
    assert f"{url}?\\u2026" in listed
    log = imgfs.log.read_text() if imgfs.log.exists() else ""
    assert "secret" not in listed + log
    done = imgfs.run("ls", server.url("/none.tar?signature=secret"))
    assert (done.status, "secret" in done.err) == (4, False)


@pytest.mark.parametrize("command", ["ls", "cat", "cp", "du", "diff", "find", "report", "which"])
def test_no_command_shows_a_signature(imgfs: Bench, server: FileServer, command: str) -> None:
    url = f"{server.put('/app.tar', HELLO.data())}?signature=secret"
    words = {"cp": [str(imgfs.folder / "copy")], "diff": [f"{url}:/etc"], "report": ["-o", "-"]}.get(command, [])
    done = imgfs.run(command, url if command == "report" else f"{url}:/none", *words)
    assert (done.status, "secret" in done.out + done.err) == (0 if command == "report" else 4, False)
    assert "app.tar?…" in done.out + done.err


def test_tls_is_trusted_as_for_registries(imgfs: Bench) -> None:
    authority = Authority(imgfs.folder / "authority")
    with file_server(authority.issue("server", server=True)) as server:
        url = server.put("/app.tar", HELLO.data())
        done = imgfs.run("cat", f"{url}:/etc/motd")
        assert (done.status, "cannot trust the server" in done.err) == (3, True)
        assert imgfs.run("cat", "--insecure", f"{url}:/etc/motd").out == "hello\n"
        assert imgfs.run("cat", f"{url}:/etc/motd", SSL_CERT_FILE=authority.ca).out == "hello\n"
        folder = imgfs.folder / "config" / "containers" / "certs.d" / server.host
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(authority.ca.read_bytes())
        assert imgfs.run("cat", f"{url}:/etc/motd", XDG_CONFIG_HOME=imgfs.folder / "config").out == "hello\n"
        done = imgfs.run("ls", "--timeout", "1", "--progress", "none", url.replace("https:", "http:"))
        assert (done.status, done.err.count("\n")) == (3, 1)


def test_certs_d_of_a_server_are_for_where_it_redirects_to_too(imgfs: Bench) -> None:
    authorities = [Authority(imgfs.folder / name) for name in ("server", "storage")]
    pairs = [authority.issue("issued", server=True) for authority in authorities]
    with file_server(pairs[0]) as server, file_server(pairs[1]) as storage:
        server.redirects["/app.tar"] = storage.put("/stored", HELLO.data())
        folder = Path(imgfs.environment["HOME"], ".config", "containers", "certs.d", server.host)
        folder.mkdir(parents=True)
        (folder / "server.crt").write_bytes(authorities[0].ca.read_bytes())
        done = imgfs.run("cat", f"{server.url('/app.tar')}:/etc/motd")
        assert (done.status, f"cannot trust the server {storage.host}: " in done.err) == (3, True)
        (folder / "storage.crt").write_bytes(authorities[1].ca.read_bytes())
        assert imgfs.run("cat", f"{server.url('/app.tar')}:/etc/motd").out == "hello\n"


def test_the_client_certificate_for_a_server_is_not_for_where_it_redirects_to(imgfs: Bench) -> None:
    authority = Authority(imgfs.folder / "authority")
    client = authority.issue("client", server=False)
    with (
        file_server(authority.issue("server", server=True)) as server,
        file_server(authority.issue("storage", server=True)) as storage,
    ):
        server.redirects["/app.tar"] = storage.put("/stored", HELLO.data())
        folders = Path(imgfs.environment["HOME"], ".config", "containers", "certs.d")
        for host in (server.host, storage.host):  # at first the server's alone
            (folders / host).mkdir(parents=True)
            for file, name in zip((*client, authority.ca), ("client.cert", "client.key", "ca.crt"), strict=True):
                (folders / host / name).write_bytes(file.read_bytes())
            assert imgfs.run("cat", f"{server.url('/app.tar')}:/etc/motd").out == "hello\n"
            assert server.client_certificates > 0
            assert (storage.client_certificates > 0) is (host == storage.host)


def test_an_archive_at_a_url_needs_no_sdk_and_a_file_no_client(imgfs: Bench, server: FileServer) -> None:
    url = server.put("/app.tar", HELLO.data())
    (imgfs.folder / "app.tar").write_bytes(HELLO.data())
    code = "import sys; from fusefs.cli import main; main(sys.argv[1:]); "
    code += "print(*sorted({'urllib3', 'docker'} & set(sys.modules)))"
    python = str(Path(COMMAND).parent / "python")
    for image, modules in ((url, "urllib3"), (str(imgfs.folder / "app.tar"), "")):
        command = [python, "-c", code, "cat", f"{image}:/etc/motd"]
        done = subprocess.run(command, env=imgfs.environment, capture_output=True, text=True, check=True)
        assert done.stdout == f"hello\n{modules}\n"
