"""What shells are told when they ask what a word may become: in time, and without a word of its own."""

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusefs.cli.parsing.candidates import NOTHING, Answer, complete, unquoted
from fusefs.cli.parsing.grammar import grammar
from fusefs.cli.parsing.parser import Parser
from tests.support.builders import Archive
from tests.support.certificates import Authority
from tests.support.fake_engine import Answer as Reply
from tests.support.fake_engine import Script, fake_engine, json_answer
from tests.support.image_names import IMAGES
from tests.support.mounts import COMMAND, Bench
from tests.support.shells import variables


def answer(*typed: str, cwd: Path | None = None, **environment: Any) -> tuple[list[str], float]:
    """Return what the shells are told, and how long that took; there is never an error, nor a message."""
    began = time.perf_counter()
    done = subprocess.run(
        [COMMAND, "__complete", *typed],
        cwd=cwd,
        env=variables(environment),
        capture_output=True,
        check=True,
        timeout=20,
    )
    assert done.stderr == b""
    return done.stdout.decode().splitlines(), time.perf_counter() - began


LATEST = ["nothing", "", "nginx:latest\t"]


def test_only_what_is_a_reference_is_the_name_of_an_image(tmp_path: Path) -> None:
    with fake_engine(Script(images=IMAGES), socket=tmp_path / "s") as engine:
        found, _ = answer("mount", "", cwd=tmp_path, DOCKER_HOST=engine.host)
    names = [line[:-1] for line in found[2:] if line.endswith("\t")]
    assert names == ["localhost:5000/team/app:v1", "nginx:1.27", "nginx:latest"]


def test_what_engines_add_to_a_name_need_not_be_typed(tmp_path: Path) -> None:
    images = json_answer([{"RepoTags": ["docker.io/library/nginx:1", "localhost/nginx:2", "docker.io/team/nginx:3"]}])
    with fake_engine(Script(images=images), socket=tmp_path / "s") as engine:
        host: dict[str, Any] = {"DOCKER_HOST": engine.host}
        assert answer("mount", "ng", **host)[0][2:] == ["nginx:1\t", "nginx:2\t"]
        assert answer("mount", "docker-daemon:t", **host)[0] == ["nothing", "docker-daemon:", "team/nginx:3\t"]
        assert answer("mount", "localh", **host)[0][2:] == ["localhost/nginx:2\t"]


def test_the_engine_is_the_one_that_the_line_names(tmp_path: Path) -> None:
    with fake_engine(Script(images=IMAGES)) as engine:
        assert answer("mount", "--host", engine.host, "nginx:l")[0] == LATEST
        assert answer("mount", f"--host={engine.host}", "nginx:l")[0] == LATEST
        assert answer("mount", f"-fH{engine.host}", "nginx:l")[0] == LATEST
        assert answer("mount", "--all", "-H", engine.host, "--filter", "nginx:l")[0] == LATEST
        assert answer("mount", "nginx:l", DOCKER_HOST=engine.host)[0] == LATEST
        assert answer("mount", "--host", f"unix://{tmp_path}/s", "nginx:l", DOCKER_HOST=engine.host)[0] == LATEST[:2]
        assert answer("mount", "--context", "gone", "nginx:l", DOCKER_HOST=engine.host)[0] == LATEST[:2]
        assert answer("mount", "--host", "ssh://somewhere", "nginx:l")[0] == LATEST[:2]


def test_an_engine_with_tls_is_asked_with_tls_only(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    authority.issue("client", server=False)
    with fake_engine(Script(images=IMAGES), tls=authority.issue("server", server=True)) as engine:
        tls: dict[str, Any] = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(authority.folder / "client")}
        assert answer("mount", "nginx:l", DOCKER_HOST=engine.host, **tls)[0] == LATEST
        assert answer("mount", "nginx:l", DOCKER_HOST=engine.host)[0] == LATEST[:2]


@pytest.mark.parametrize(
    "images",
    [
        Reply(500, [b'{"message": "no"}']),
        Reply(parts=[b"[" * 100_000]),
        Reply(parts=[b"no JSON"]),
        Reply(parts=[b"[{}"], cut=True),
        json_answer({"RepoTags": ["nginx:latest"]}),
        json_answer([{"RepoTags": "nginx:latest"}]),
    ],
    ids=["refuses", "too deep", "no JSON", "hangs up", "an object", "a string"],
)
def test_an_engine_that_talks_nonsense_is_as_none(tmp_path: Path, images: Reply) -> None:
    with fake_engine(Script(images=images), socket=tmp_path / "s") as engine:
        assert answer("mount", "nginx:l", DOCKER_HOST=engine.host)[0] == LATEST[:2]


def test_an_engine_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    gate = threading.Event()
    with fake_engine(Script(images=Reply(gate=gate)), socket=tmp_path / "s") as engine:
        found, seconds = answer("mount", "docker-d", cwd=tmp_path, DOCKER_HOST=engine.host)
        gate.set()
    assert found == ["nothing", "", "docker-daemon:\tan image in Docker or Podman"]
    assert seconds < 2


def test_an_engine_that_never_comes_to_an_end_is_left(tmp_path: Path) -> None:
    gate = threading.Event()

    def drops() -> Iterator[bytes]:
        while not gate.wait(0.2):
            yield b" "

    with fake_engine(Script(images=Reply(parts=drops())), socket=tmp_path / "s") as engine:
        found, seconds = answer("mount", "docker-d", cwd=tmp_path, DOCKER_HOST=engine.host)
        gate.set()
    assert found == ["nothing", "", "docker-daemon:\tan image in Docker or Podman"]
    assert seconds < 2


def test_without_an_engine_the_answer_is_there_at_once(tmp_path: Path) -> None:
    assert min(answer("mount", "nginx:l", DOCKER_HOST=f"unix://{tmp_path}/s")[1] for _ in range(5)) < 0.5
    assert min(answer("mount", "--no-c")[1] for _ in range(5)) < 0.3


def test_what_cannot_be_read_as_words_is_no_error(tmp_path: Path) -> None:
    assert answer()[0][:2] == ["nothing", ""]
    for typed in (
        ["--"],
        ["mount", "--", ""],
        ["mount", "\udcff"],
        ["-x", "-"],
        ["mount", "'"],
        ["cache", "--a", "\\"],
    ):
        answer(*typed, cwd=tmp_path)


@pytest.mark.parametrize(
    ("typed", "prefix", "found"),
    [
        (["--colour", "a"], "", ["always", "auto"]),
        (["--colour=n"], "--colour=", ["never"]),
        (["-xc", ""], "", ["always", "auto", "never"]),
        (["-cau"], "-c", ["auto"]),
        (["-c", "auto", "--x"], "", ["--xylophone"]),
        (["-x", "-"], "", ["-c", "--colour", "-x", "--xylophone"]),
        (["--", "-"], "", []),
    ],
)
def test_values_that_an_option_lists_are_completed(typed: list[str], prefix: str, found: list[str]) -> None:
    parser = Parser(prog="x", description="")
    parser.add_argument("-c", "--colour", choices=("always", "auto", "never"))
    parser.add_argument("-x", "--xylophone", action="store_true")
    answered = complete(grammar(parser), typed, lambda *_: Answer(NOTHING, "", ()))
    assert (answered.prefix, [one.word for one in answered.completions]) == (prefix, found)


@pytest.mark.parametrize(
    ("typed", "word"),
    [
        ("plain", "plain"),
        ("my\\ name", "my name"),
        ("'my name'", "my name"),
        ("'my na", "my na"),
        ('"my na', "my na"),
        ('"a \\"b\\" \\c', 'a "b" \\c'),
        ("a'b'\"c\"d", "abcd"),
        ('"$(touch evil)`x`$HOME', "$(touch evil)`x`$HOME"),
        ("~/x", "~/x"),
        ("\\", ""),
        ('"\\', ""),
        ("", ""),
    ],
)
def test_quotes_are_taken_off_and_nothing_is_expanded(typed: str, word: str) -> None:
    assert unquoted(typed) == word


def test_mountpoints_here_are_completed_as_they_are_typed(imgfs: Bench) -> None:
    archive = Archive().write(imgfs.folder / "x.tar")
    mountpoint = imgfs.mount(archive)
    line_feed = imgfs.mountpoint("line\nfeed")
    assert imgfs.run("mount", "--log-file", imgfs.log, archive, line_feed).status == 0
    assert answer("umount", "m", cwd=imgfs.folder)[0] == ["nothing", "", "mnt\t"]
    assert answer("umount", "./m", cwd=imgfs.folder)[0] == ["nothing", "", "./mnt\t"]
    assert answer("umount", "~/m", HOME=str(imgfs.folder))[0] == ["nothing", "", f"{mountpoint}\t"]
    assert answer("umount", str(line_feed)[:-4])[0] == ["nothing", ""]


def test_an_image_that_is_mounted_once_is_completed_to_unmount_it(imgfs: Bench) -> None:
    archive = f"docker-archive:{Archive().write(imgfs.folder / 'x.tar')}"
    mountpoint = imgfs.mount(archive)
    beginning = archive[:-6]
    assert answer("umount", beginning)[0] == ["nothing", "", f"{archive}\t{mountpoint}"]
    imgfs.mount(archive, at=imgfs.mountpoint("again"))
    assert answer("umount", beginning)[0] == ["nothing", ""]
