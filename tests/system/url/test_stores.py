"""Archives in object stores, through a server that answers as S3 does to reads."""

import random
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from fusefs.sources.url.object_child import REPLY
from tests.support.builders import Archive, compressed, layer
from tests.support.file_server import FileServer
from tests.support.mounts import Bench
from tests.support.processes import until
from tests.support.requirements import give_up

DATA = random.Random(2).randbytes(3_000_000)
ARCHIVE = Archive(layers=[layer({"big": DATA}), layer({"etc/motd": b"hello\n"})]).data()


@pytest.fixture(name="store")
def store_fixture(imgfs: Bench, server: FileServer) -> FileServer:
    """Give the server, where imgfs finds the bucket ``images``."""
    if subprocess.run([sys.executable, "-c", "import obstore"], capture_output=True, check=False).returncode:
        give_up("needs obstore")
    server.dated = True
    imgfs.environment |= {
        "AWS_ENDPOINT": server.url(""),
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    return server


def children(imgfs: Bench) -> list[list[str]]:
    """Return the command lines of the processes that ask a store."""
    return [words for words in imgfs.processes().values() if any("object_child" in word for word in words)]


def test_an_archive_in_a_store_is_read_by_ranges(imgfs: Bench, store: FileServer) -> None:
    store.put("/images/some/app.tar", ARCHIVE)
    assert imgfs.run("cat", "s3://images/some/app.tar:/etc/motd").out == "hello\n"
    requests, sent = store.count()
    assert (requests <= 6, sent < 200_000) == (True, True), (requests, sent)
    mounted = imgfs.mount("s3://images/some/app.tar")
    until(lambda: not children(imgfs), "the child of the command ends with it")
    assert (mounted / "rootfs" / "big").read_bytes() == DATA
    assert all("authorization" in {name.lower() for name in headers} for headers in store.headers)
    imgfs.end_mounts()
    until(lambda: not children(imgfs), "the children end with their mounts")


@pytest.mark.parametrize(
    ("url", "signature", "settings"),
    [
        ("gs://images/app.tar", "", {"GOOGLE_BASE_URL": "", "GOOGLE_SKIP_SIGNATURE": "true"}),
        (
            "az://images/app.tar",
            "SharedKey account:",
            {
                "AZURE_STORAGE_ENDPOINT": "",
                "AZURE_STORAGE_ACCOUNT_NAME": "account",
                "AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0",
            },
        ),
    ],
    ids=["Google", "Azure"],
)
def test_other_stores_are_asked_in_their_own_way(
    imgfs: Bench, store: FileServer, url: str, signature: str, settings: dict[str, str]
) -> None:
    store.put("/images/app.tar", ARCHIVE)
    imgfs.environment |= {name: value or store.url("") for name, value in settings.items()}
    mounted = imgfs.mount(url)
    assert (mounted / "rootfs" / "big").read_bytes() == DATA
    sent = [{name.lower(): value for name, value in headers.items()} for headers in store.headers]
    assert all(headers.get("authorization", "").startswith(signature) for headers in sent)
    assert {"x-ms-version" in headers for headers in sent} == {url.startswith("az")}
    imgfs.end_mounts()
    assert imgfs.run("ls", "--progress", "none", url.replace("app", "none")).err == (
        f"imgfs: {url.replace('app', 'none')}: does not exist\n"
    )


def test_a_compressed_archive_in_a_store_is_spooled(imgfs: Bench, store: FileServer) -> None:
    store.put("/images/app.tgz", compressed(ARCHIVE, "gzip"))
    assert imgfs.run("cat", "docker-archive:s3://images/app.tgz:@0:/etc/motd").out == "hello\n"


def test_a_key_is_spelled_as_in_a_url(imgfs: Bench, store: FileServer) -> None:
    store.put("/images/some%20app%3Av1.tar", ARCHIVE)
    assert imgfs.run("cat", "s3://images/some%20app%3Av1.tar:/etc/motd").out == "hello\n"


@pytest.mark.parametrize("key", ["%252e%252e/%252Fa", ".../a.", "a%20?b/c", "+%2B;@%5C~*", "%C3%A9e%CC%81%C2%85"])
def test_a_key_is_asked_for_as_it_is(imgfs: Bench, store: FileServer, key: str) -> None:
    assert imgfs.run("ls", f"s3://images/{key}").status == 4
    assert {request.partition(" bytes=")[0] for request in store.requests} == {f"/images/{unquote(key)}"}


def test_an_endpoint_without_tls_has_to_be_allowed(imgfs: Bench, store: FileServer) -> None:
    store.put("/images/app.tar", ARCHIVE)
    done = imgfs.run("ls", "s3://images/app.tar", AWS_ALLOW_HTTP="")
    message = "s3://images/app.tar: the endpoint of the store is http://, which needs AWS_ALLOW_HTTP=true"
    assert (done.status, done.err) == (2, f"imgfs: {message}\n")
    assert store.count() == (0, 0)


def test_a_changed_object_is_unavailable(imgfs: Bench, store: FileServer) -> None:
    store.put("/images/app.tar", ARCHIVE)
    mounted = imgfs.mount("s3://images/app.tar")
    store.put("/images/app.tar", ARCHIVE[:-512] + bytes([1]) * 512)
    with pytest.raises(OSError, match="Input/output"):
        (mounted / "layers" / "0" / "big").read_bytes()
    assert "was changed while it is in use" in imgfs.log.read_text()
    imgfs.log_is_quiet = False


@pytest.mark.usefixtures("store")
def test_what_a_store_refuses_is_one_line(imgfs: Bench) -> None:
    done = imgfs.run("ls", "--progress", "none", "s3://images/none.tar")
    assert (done.status, done.err) == (4, "imgfs: s3://images/none.tar: does not exist\n")
    done = imgfs.run(
        "ls", "--timeout", "1", "--progress", "none", "s3://images/a.tar", AWS_ENDPOINT="http://127.0.0.1:1"
    )
    assert (done.status, done.err.count("\n")) == (3, 1), done


def test_without_the_library_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['obstore'] = None; sys.argv[1:] = ['s3://images/a', '1']; "
    hidden += "from fusefs.sources.url.object_child import main; main()"
    ask = (0).to_bytes(8, "big") + (10).to_bytes(8, "big") + bytes(4)
    command = [sys.executable, "-c", hidden]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(ask)
        child.stdin.flush()
        kind, length = REPLY.unpack(child.stdout.read(REPLY.size))
        assert (kind, b"pipx install '.[s3]' in a checkout of imgfs" in child.stdout.read(length)) == (b"U", True)
