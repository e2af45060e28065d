"""``imgfs mount --all docker://REGISTRY``: the images of a registry as one directory."""

import contextlib
import errno
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.changesets import changeset, file
from tests.support.fault_proxy import Asked, Fault, Proxy, Reply, body, fault_proxy, of_head, status
from tests.support.layouts import Layout
from tests.support.mounts import Bench, tree
from tests.support.processes import until
from tests.support.registries import AUTH, HTPASSWD, Registry, TokenServer, push, registry, token_server
from tests.system.registry.test_images import everything

NAMES = ("app:1", "base:latest", "base:2", "team/app:1", "team/app:latest", "team/app/sub:x", "team/web:v1")
HIDDEN = ("team/web:sha256-" + "a" * 64, "team/web:sha256-" + "b" * 64 + ".sig")
SHOWN = ["manifest.json", "config", "blobs", "oci-layout", "index.json", "layers", "rootfs"]


def push_file(to: Registry, name: str, content: str = "") -> str:
    """Push an image whose file ``name`` has its own name in it, or other *content*; return the digest."""
    layout = Layout()
    layer = changeset(file("name", (content or name).encode()))
    return push(layout.list(layout.image([layer], compression="gzip"), "1"), to, name)


@pytest.fixture(name="shelf", scope="module")
def shelf_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Give a registry with some repositories, which no test changes."""
    with registry(tmp_path_factory.mktemp("shelf")) as made:
        for name in (*NAMES, *HIDDEN):
            push_file(made, name)
        yield made


@pytest.fixture(name="between")
def between_fixture(shelf: Registry) -> Iterator[Proxy]:
    """Give a proxy in front of that registry."""
    with fault_proxy(shelf.host) as made:
        yield made


def _mount(imgfs: Bench, source: str, *options: str | Path, warns: bool = False) -> Path:
    mountpoint = imgfs.mountpoint()
    done = imgfs.run("mount", "--all", "--log-file", imgfs.log, *options, source, mountpoint)
    assert (done.status, done.out) == (0, ""), done.err
    lines = done.err.splitlines()
    assert len(lines) == 1 + warns, done.err
    return mountpoint


def _found(mountpoint: Path, *options: str) -> list[str]:
    listed = subprocess.run(["find", ".", *options], cwd=mountpoint, check=True, capture_output=True, text=True)
    return sorted(listed.stdout.split())


def test_repositories_are_folders_and_tags_directories_for_lists_alone(imgfs: Bench, shelf: Registry) -> None:
    shelf.requests()
    mountpoint = _mount(imgfs, f"docker://{shelf.host}")
    images = ["app@1", "base@2", "base@latest"]
    expected = [".", *images, *(f"{image}/{name}" for image in images for name in SHOWN), "team"]
    expected += [f"team/{name}" for name in ("app", "app@1", "app@latest", "web@v1")]
    assert _found(mountpoint, "-maxdepth", "2") == sorted(f"./{path}".replace("./.", ".") for path in expected)
    subprocess.run(["ls", "-l", mountpoint, mountpoint / "team"], check=True, capture_output=True)
    assert os.listdir(mountpoint / "team" / "app") == ["sub@x"]
    lists = [line.partition("?")[0] for line in shelf.requests()]
    assert set(lists) <= {
        "GET /v2/_catalog",
        *(f"GET /v2/{name}/tags/list" for name in ("app", "base", "team/app", "team/web", "team/app/sub")),
    }
    assert len(lists) <= 2 * 6


def test_a_directory_shows_what_a_mount_of_the_image_shows(imgfs: Bench, shelf: Registry) -> None:
    alone = imgfs.mount(shelf.image("team/app:1"), at=imgfs.mountpoint("alone"))
    mountpoint = _mount(imgfs, f"docker://{shelf.host}")
    together = mountpoint / "team" / "app@1"
    assert (together / "rootfs" / "name").read_bytes() == b"team/app:1"
    assert tree(together) == tree(alone)
    until(lambda: together.stat().st_mtime_ns == alone.stat().st_mtime_ns, "its time is known", 4)
    numberless = {path: (*about[:6], *about[7:]) for path, about in everything(alone).items()}
    assert {path: (*about[:6], *about[7:]) for path, about in everything(together).items()} == numberless
    assert os.getxattr(together, "user.oci.ref") == os.getxattr(alone, "user.oci.ref")
    assert (together / "index.json").read_bytes() == (alone / "index.json").read_bytes()


def test_other_names_are_links_and_what_is_none_is_not_there(imgfs: Bench, shelf: Registry) -> None:
    mountpoint = _mount(imgfs, f"docker://{shelf.host}")
    links = {
        "base": "base@latest",
        "base:2": "base@2",
        "team/app:latest": "app@latest",
        "team/app:1": "app@1",
        "team/app/sub:x": "sub@x",
    }
    for path, target in links.items():
        place = mountpoint / path
        assert os.readlink(place) == target
        assert (place / "rootfs" / "name").read_text() in (path, f"{path}:latest")
        assert place.name not in os.listdir(place.parent)
    none = ["base:3", "base@3", "base@", "app", f"base@sha256:{'0' * 64}", "Base", ".git", "\xff", "a@b@c", "a:b@c"]
    none += [name.replace(":", "@") for name in HIDDEN]
    assert [name for name in none if os.path.lexists(mountpoint / name)] == []


def test_a_digest_is_a_directory_that_is_not_listed(imgfs: Bench, shelf: Registry) -> None:
    digest = push_file(shelf, "app:1")
    mountpoint = _mount(imgfs, f"docker://{shelf.host}")
    assert (mountpoint / f"app@{digest}" / "rootfs" / "name").read_bytes() == b"app:1"
    assert sorted(os.listdir(mountpoint)) == ["app@1", "base@2", "base@latest", "team"]


def test_a_registry_that_refuses_head_is_asked_by_get_but_not_for_what_is_not_there(
    imgfs: Bench, shelf: Registry, between: Proxy
) -> None:
    digest, missing = push_file(shelf, "app:1"), f"sha256:{'0' * 64}"
    mountpoint = _mount(imgfs, f"docker://{between.host}")
    between.requests()
    assert not (mountpoint / f"app@{missing}").exists()
    assert between.requests() == ["HEAD manifests/00000000"]
    between.always["/manifests/"] = of_head(status(405))
    assert (mountpoint / f"app@{digest}").is_dir()
    assert between.requests()[:2] == [f"{method} manifests/{digest[7:15]}" for method in ("HEAD", "GET")]


def test_a_namespace_shows_what_is_in_it_and_a_repository_its_tags(imgfs: Bench, shelf: Registry) -> None:
    mountpoint = _mount(imgfs, f"docker://{shelf.host}/team/app/")
    assert sorted(os.listdir(mountpoint)) == ["app@1", "app@latest", "sub@x"]
    assert (mountpoint / "app" / "rootfs" / "name").read_bytes() == b"team/app:latest"
    assert imgfs.run("umount", mountpoint).status == 0
    mountpoint.rmdir()
    mountpoint = _mount(imgfs, f"docker://{shelf.host}/team")
    assert sorted(os.listdir(mountpoint)) == ["app", "app@1", "app@latest", "web@v1"]
    assert (_status(imgfs, mountpoint)["source"], _status(imgfs, mountpoint)["inUse"]) == (f"{shelf.host}/team", [])
    assert (mountpoint / "app@1" / "rootfs" / "name").read_bytes() == b"team/app:1"
    assert _status(imgfs, mountpoint)["inUse"] == ["app@1"]


def _status(imgfs: Bench, mountpoint: Path) -> dict[str, object]:
    listed = json.loads(imgfs.run("list", "--json").out)
    return next(mount for mount in listed if mount["mountpoint"] == str(mountpoint))


def _in_pages_of_two(proxy: Proxy) -> Fault:
    def fault(asked: Asked, _: Reply) -> Reply:
        return proxy.passed_on(asked.__class__(asked.method, asked.path.replace("n=1000", "n=2"), asked.headers))

    return fault


def test_a_list_of_several_pages_is_followed(imgfs: Bench, between: Proxy) -> None:
    between.always["_catalog"] = _in_pages_of_two(between)
    between.faults["web/tags/list"] = [
        lambda _, reply: _page(reply, ["a", "b"], "</v2/elsewhere?last=b&n=2>; rel=next"),
        lambda _, reply: _page(reply, ["c", "v1"], ""),
    ]
    mountpoint = _mount(imgfs, f"docker://{between.host}")
    assert sorted(os.listdir(mountpoint)) == ["app@1", "base@2", "base@latest", "team"]
    assert sorted(os.listdir(mountpoint / "team")) == ["app", *(f"app@{tag}" for tag in ("1", "latest")), *(
        f"web@{tag}" for tag in ("a", "b", "c", "v1")
    )]  # fmt: skip
    paths = [asked.path for asked in between.asked]
    assert sum("_catalog" in path for path in paths) == 3
    assert "/v2/team/web/tags/list?last=b&n=2" in paths


def _page(reply: Reply, names: list[object], link: str) -> Reply:
    data = json.dumps({"tags": names}).encode()
    return Reply(200, {**reply.headers, "Content-Length": str(len(data))} | ({"Link": link} if link else {}), data)


@pytest.fixture(name="tokens")
def tokens_fixture(tmp_path: Path) -> Iterator[TokenServer]:
    """Give a token server."""
    with token_server(tmp_path) as made:
        yield made


def test_without_a_list_of_repositories_those_that_were_looked_up_are_listed(
    imgfs: Bench, shelf: Registry, tokens: TokenServer
) -> None:
    tokens.kinds = ("repository",)
    with registry(shelf.folder, **tokens.auth) as guarded:
        mountpoint = _mount(imgfs, f"docker://{guarded.host}", warns=True)
        assert os.listdir(mountpoint) == []
        assert (mountpoint / "team" / "web@v1" / "rootfs" / "name").read_bytes() == b"team/web:v1"
        until(lambda: os.listdir(mountpoint) == ["team"], "the folder is listed", 4)
        assert os.listdir(mountpoint / "team") == ["web@v1"]
        assert os.readlink(mountpoint / "base") == "base@latest"
        until(lambda: "base@2" in os.listdir(mountpoint), "the repository is listed", 4)
        assert os.listdir(mountpoint / "nothing") == []
        assert sorted(os.listdir(mountpoint)) == ["base@2", "base@latest", "team"]


def test_credentials_are_those_of_images(imgfs: Bench, shelf: Registry) -> None:
    passwords = shelf.folder / "htpasswd"
    passwords.write_text(f"{HTPASSWD}\n")
    with registry(shelf.folder, htpasswd={"realm": "the tests", "path": str(passwords)}) as private:
        file = imgfs.folder / "auth.json"
        file.write_text(json.dumps({"auths": {private.host: {"auth": AUTH}}}))
        mountpoint = _mount(imgfs, f"docker://{private.host}", "--authfile", file)
        assert sorted(os.listdir(mountpoint / "team")) == ["app", "app@1", "app@latest", "web@v1"]
        assert (mountpoint / "team" / "web@v1" / "rootfs" / "name").read_bytes() == b"team/web:v1"
        assert imgfs.run("umount", mountpoint).status == 0
        mountpoint.rmdir()
        mountpoint = _mount(imgfs, f"docker://{private.host}", warns=True)
        assert os.listdir(mountpoint) == []
        assert not os.path.lexists(mountpoint / "base@2")


def test_certificates_are_those_of_images(imgfs: Bench, shelf: Registry) -> None:
    authority = Authority(imgfs.folder / "authority")
    with fault_proxy(shelf.host, tls=authority.issue("server", server=True)) as proxy:
        source = f"docker://{proxy.host}/team"
        done = imgfs.run("mount", "--all", "--log-file", imgfs.log, source, imgfs.mountpoint("not"))
        assert (done.status, f"cannot trust the registry {proxy.host}: " in done.err) == (3, True)
        mountpoint = _mount(imgfs, source, "--insecure")
        assert sorted(os.listdir(mountpoint)) == ["app", "app@1", "app@latest", "web@v1"]
        assert (mountpoint / "app@1" / "rootfs" / "name").read_bytes() == b"team/app:1"
        assert imgfs.run("umount", mountpoint).status == 0
        mountpoint.rmdir()
        trusted = Path(imgfs.environment["HOME"], ".config", "containers", "certs.d", proxy.host)
        trusted.mkdir(parents=True)
        (trusted / "ca.crt").write_bytes(authority.ca.read_bytes())
        mountpoint = _mount(imgfs, source)
        assert (mountpoint / "web@v1" / "rootfs" / "name").read_bytes() == b"team/web:v1"
        assert imgfs.run("umount", mountpoint).status == 0


@pytest.mark.parametrize("mirror_fails", [False, True])
def test_mirrors_and_locations_are_those_of_images(
    imgfs: Bench, shelf: Registry, between: Proxy, *, mirror_fails: bool
) -> None:
    configuration = Path(imgfs.environment["HOME"], ".config", "containers", "registries.conf")
    configuration.parent.mkdir(parents=True)
    configuration.write_text(
        f'[[registry]]\nprefix = "registry.invalid/here"\nlocation = "{shelf.host}/team"\n'
        f'[[registry.mirror]]\nlocation = "{between.host}/team"\n'
    )
    if mirror_fails:
        between.always["/v2/"] = status(404)
    shelf.requests()
    mountpoint = _mount(imgfs, "docker://registry.invalid/here")
    assert sorted(os.listdir(mountpoint)) == ["app", "app@1", "app@latest", "web@v1"]
    assert (mountpoint / "app@1" / "rootfs" / "name").read_bytes() == b"team/app:1"
    asked = between.requests()
    assert [line for line in asked if "tags/list" in line]
    assert [line for line in asked if "manifests/" in line]
    assert imgfs.run("umount", mountpoint).status == 0
    configuration.write_text('[[registry]]\nprefix = "*.invalid"\nblocked = true\n')
    done = imgfs.run("mount", "--all", "docker://registry.invalid/here", imgfs.mountpoint("not"))
    assert (done.status, "is blocked by the configuration in registries.conf" in done.err) == (4, True)


def test_a_tag_that_moves_is_seen_and_what_is_open_stays(imgfs: Bench, server: Registry) -> None:
    push_file(server, "moving:1", "before")
    mountpoint = _mount(imgfs, f"docker://{server.host}")
    name = mountpoint / "moving@1" / "rootfs" / "name"
    assert name.read_bytes() == b"before"
    with name.open("rb") as held:
        inside = os.open(name.parent, os.O_RDONLY)
        push_file(server, "moving:1", "after")
        until(lambda: name.read_bytes() == b"after", "the other image is seen", 6)
        assert held.read() == b"before"
        again = os.open("name", os.O_RDONLY, dir_fd=inside)
        assert os.read(again, 100) == b"before"
        os.close(again)
        os.close(inside)
    push_file(server, "moving:1", "before")
    until(lambda: name.read_bytes() == b"before", "the first image is seen again", 6)
    push_file(server, "moving:2", "new")
    until((mountpoint / "moving@2").is_dir, "a new tag is seen", 4)
    until(lambda: "moving@2" in os.listdir(mountpoint), "and listed", 4)


def _blobs(imgfs: Bench, serving: int) -> list[str]:
    """Return the blobs, and directories of cache entries, that a process has open."""
    found = []
    for number in os.listdir(f"/proc/{serving}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{serving}/fd/{number}"))
    return [path for path in found if path.startswith(f"{imgfs.cache}/blobs/")]


def test_an_image_that_was_let_go_is_the_same_when_it_comes_back(imgfs: Bench, server: Registry) -> None:
    push_file(server, "idle:1", "before")
    mountpoint = _mount(imgfs, f"docker://{server.host}", "--idle", "0.5")
    inside = os.open(mountpoint / "idle@1" / "rootfs", os.O_RDONLY)
    assert os.listdir(inside) == ["name"]
    serving = imgfs.serving(mountpoint)
    assert _blobs(imgfs, serving) != []
    until(lambda: _status(imgfs, mountpoint)["inUse"] == [], "it is let go")
    until(lambda: _blobs(imgfs, serving) == [], "its files are closed")
    push_file(server, "idle:1", "after")
    again = os.open("name", os.O_RDONLY, dir_fd=inside)
    assert os.read(again, 100) == b"before"
    os.close(again)
    os.close(inside)


def test_a_registry_that_fails_is_an_error_where_nothing_is_known(imgfs: Bench, between: Proxy) -> None:
    imgfs.log_is_quiet = False
    mountpoint = _mount(imgfs, f"docker://{between.host}")
    name = mountpoint / "app@1" / "rootfs" / "name"
    assert name.read_bytes() == b"app:1"
    assert "app@1" in os.listdir(mountpoint)
    for path in ("_catalog", "tags/list", "manifests"):
        between.always[path] = status(501)
    with name.open("rb") as held:
        for path in ("team", "team/web@v1"):
            with pytest.raises(OSError, match="Input/output") as caught:
                os.listdir(mountpoint / path)
            assert caught.value.errno == errno.EIO
        assert b"501" in os.getxattr(mountpoint / "team", "user.imgfs.error")
        assert held.read() == b"app:1"
        assert name.read_bytes() == b"app:1"
        assert "app@1" in os.listdir(mountpoint)
    between.always.clear()
    until(lambda: _lists(mountpoint / "team", "web@v1"), "it is asked again", 6)
    until(lambda: _lists_without_error(mountpoint / "team"), "the error is gone", 6)


def _lists_without_error(folder: Path) -> bool:
    return _lists(folder, "app@1") and "user.imgfs.error" not in os.listxattr(folder)


def _lists(folder: Path, name: str) -> bool:
    try:
        return name in os.listdir(folder)
    except OSError:
        return False


@pytest.mark.parametrize("code", [501, 500])  # the second is tried again, for longer than a listing waits
def test_one_repository_that_fails_leaves_the_others(imgfs: Bench, between: Proxy, code: int) -> None:
    imgfs.log_is_quiet = False
    mountpoint = _mount(imgfs, f"docker://{between.host}")
    between.always["team/app/tags"] = status(code)
    assert sorted(os.listdir(mountpoint / "team")) == ["app", "web@v1"]
    assert b"%d" % code in os.getxattr(mountpoint / "team", "user.imgfs.error")
    assert (mountpoint / "team" / "app@1" / "rootfs" / "name").read_bytes() == b"team/app:1"
    assert imgfs.log.read_text().count("501") == (code == 501)


def test_a_slow_answer_is_waited_for_in_its_directory_alone(imgfs: Bench, between: Proxy) -> None:
    mountpoint = _mount(imgfs, f"docker://{between.host}")
    gate = threading.Event()

    def held(_: Asked, reply: Reply) -> Reply:
        gate.wait(30)
        return reply

    between.always["team/web/tags"] = held
    waiting = subprocess.Popen(["ls", mountpoint / "team"], stdout=subprocess.PIPE, text=True)
    until(lambda: any("team/web/tags" in asked.path for asked in between.asked), "the list is asked for")
    assert (mountpoint / "base@2" / "rootfs" / "name").read_bytes() == b"base:2"
    assert "app@1" in os.listdir(mountpoint)
    gate.set()
    assert waiting.communicate(timeout=10)[0].split() == ["app", "app@1", "app@latest", "web@v1"]


def test_hostile_lists_are_bounded_and_told_in_one_line(imgfs: Bench, between: Proxy) -> None:
    imgfs.log_is_quiet = False
    names = ["ok", "../up", "/root", "a\0b", "a\nb", "\x1b[2J", "", ".", "..", "A", 7, None, ["x"], "ok", "x" * 300]
    between.always["_catalog"] = body(json.dumps({"repositories": names}).encode())
    page = iter(range(1 << 30))

    def endless(_: Asked, reply: Reply) -> Reply:
        number = next(page)
        tags = ["same", f"t{number}", "../../x", "a/b", "a\0", f"-{number}"]
        return _page(reply, [*tags], f'</v2/ok/tags/list?n=1&last={number}>; rel="next"')

    between.always["tags/list"] = endless
    mountpoint = _mount(imgfs, f"docker://{between.host}", warns=True)
    until(lambda: _lists(mountpoint, "ok@same"), "256 pages are read", 60)
    listed = sorted(os.listdir(mountpoint))
    assert listed == sorted(["ok@same", *(f"ok@t{number}" for number in range(256))])
    assert os.listdir(mountpoint / "..")
    warnings = [line for line in imgfs.log.read_text().splitlines() if "tags" in line]
    assert len(warnings) == 1
    assert "it has more than 256 pages" in warnings[0]
    assert "1024 of its names are none" in warnings[0]


@pytest.mark.parametrize(
    "data", [b"[]", b"{", b'{"repositories": 7}', b"", b" " * (5 << 20), b"[" * 100_000], ids=lambda data: data[:9]
)
def test_an_answer_that_is_no_list_is_an_error_of_the_command(imgfs: Bench, between: Proxy, data: bytes) -> None:
    between.always["_catalog"] = body(data)
    done = imgfs.run("mount", "--all", "--timeout", "1", f"docker://{between.host}", imgfs.mountpoint())
    assert done.status in (3, 5)
    assert len(done.err.splitlines()) == 1


def test_a_registry_that_cannot_be_reached_is_an_error_of_the_command(imgfs: Bench) -> None:
    done = imgfs.run("mount", "--all", "docker://localhost:1/team", imgfs.mountpoint())
    assert done.status == 3
    assert done.err.startswith("imgfs: cannot reach the registry localhost:1: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["docker://localhost:1/team:v1"], "bad reference 'localhost:1/team:v1': --all takes a registry"),
        (["docker://"], "bad reference '': --all takes a registry"),
        (["docker://localhost:1/Team"], "bad reference 'localhost:1/Team': --all takes a registry"),
        (["--offline", "docker://localhost:1"], "--all of a registry and --offline exclude each other"),
    ],
)
def test_what_names_no_registry_is_a_usage_error(imgfs: Bench, words: list[str], message: str) -> None:
    done = imgfs.run("mount", "--all", *words, imgfs.mountpoint())
    assert done.status == 2
    assert done.err.startswith(f"imgfs: {message}")


def test_it_is_an_option_of_mount_8_and_needs_no_mountpoint(imgfs: Bench, shelf: Registry) -> None:
    mountpoint = imgfs.mountpoint()
    done = imgfs.run(f"docker://{shelf.host}/team", mountpoint, "-o", f"ro,all,log-file={imgfs.log}")
    assert (done.status, done.out, done.err) == (0, "", "")
    assert "web@v1" in os.listdir(mountpoint)
    done = imgfs.run("mount", "--all", f"docker://{shelf.host}/team", XDG_RUNTIME_DIR=imgfs.folder)
    assert done.status == 0, done.err
    made = Path(done.out.strip())
    assert "web@v1" in os.listdir(made)
    assert imgfs.run("umount", made, XDG_RUNTIME_DIR=imgfs.folder).status == 0
    assert not made.exists()


def test_a_filter_shows_images_with_such_a_name_alone(imgfs: Bench, shelf: Registry) -> None:
    mountpoint = _mount(imgfs, f"docker://{shelf.host}", "--filter", "*:latest")
    assert sorted(os.listdir(mountpoint)) == ["base@latest", "team"]
    assert sorted(os.listdir(mountpoint / "team")) == ["app", "app@latest"]
    assert not os.path.lexists(mountpoint / "base:2")


def test_many_repositories_are_asked_for_four_at_a_time(imgfs: Bench, between: Proxy) -> None:
    names = [f"many/r{number}" for number in range(60)]
    between.always["_catalog"] = body(json.dumps({"repositories": names}).encode())
    between.always["tags/list"] = lambda _, reply: _page(reply, ["1"], "")
    mountpoint = _mount(imgfs, f"docker://{between.host}")
    assert len(os.listdir(mountpoint / "many")) == 60
    assert between.most_connections <= 10
