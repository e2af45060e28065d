"""The command line: its grammar, its messages and its exit codes."""

import argparse
import re
import subprocess
from argparse import Namespace
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from fusefs import __version__
from fusefs.cli import main
from fusefs.cli.parsing.parser import Parser
from fusefs.cli.parsing.program import parse_arguments, program_parser
from fusefs.errors import UsageError
from tests.support.builders import LAYERS, Archive, archive_of, image_config, member
from tests.support.mounts import COMMAND

DEFAULTS = {
    "command": "mount",
    "image": "nginx",
    "mountpoint": "/mnt",
    "foreground": False,
    "options": [],
    "driver": "auto",
    "subdir": None,
    "all": False,
    "filter": None,
    "max_saves": None,
    "idle": None,
    "no_trees": False,
    "index": False,
    "prefetch": None,
    "host": None,
    "context": None,
    "platform": None,
    "timeout": None,
    "tmpdir": None,
    "shared_blob_dir": None,
    "authfile": None,
    "insecure": False,
    "strict": False,
    "offline": False,
    "cache_dir": None,
    "cache_size": None,
    "no_cache": False,
    "verify": False,
    "quiet": False,
    "progress": "auto",
    "verbose": False,
    "log_file": None,
}


def mount(*words: str) -> dict[str, object]:
    """Return what differs from the defaults with *words* added."""
    found = vars(parse_arguments(["mount", "nginx", "/mnt", *words]))
    assert found.keys() == DEFAULTS.keys()
    return {name: value for name, value in found.items() if value != DEFAULTS[name]}


def test_mount_takes_an_image_and_a_mountpoint() -> None:
    assert parse_arguments(["mount", "nginx", "/mnt"]) == Namespace(**DEFAULTS)


def test_umount_takes_a_mountpoint() -> None:
    defaults = Namespace(command="umount", mountpoint=["/mnt"], lazy=False, all=False)
    assert parse_arguments(["umount", "/mnt"]) == defaults


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["-f"], {"foreground": True}),
        (["--foreground"], {"foreground": True}),
        (["-H", "tcp://a:1"], {"host": "tcp://a:1"}),
        (["--host=tcp://a:1"], {"host": "tcp://a:1"}),
        (["--context", "x"], {"context": "x"}),
        (["--platform", "linux/arm64"], {"platform": "linux/arm64"}),
        (["--timeout", "0.5"], {"timeout": 0.5}),
        (["-o", "timeout=0"], {"timeout": 0.0, "options": ["timeout=0"]}),
        (["--tmpdir", "/x"], {"tmpdir": "/x"}),
        (["--shared-blob-dir", "/x"], {"shared_blob_dir": "/x"}),
        (["--authfile", "/x"], {"authfile": "/x"}),
        (["--insecure"], {"insecure": True}),
        (["--strict"], {"strict": True}),
        (["-o", "offline"], {"offline": True, "options": ["offline"]}),
        (["--cache-dir", "/x"], {"cache_dir": "/x"}),
        (["--cache-size", "500M"], {"cache_size": 500_000_000}),
        (["--no-cache"], {"no_cache": True}),
        (["--verify"], {"verify": True}),
        (["-q"], {"quiet": True}),
        (["-v"], {"verbose": True}),
        (["--progress", "plain"], {"progress": "plain"}),
        (["--log-file", "x"], {"log_file": "x"}),
        (["-o", "ro,noexec", "-oallow_other"], {"options": ["ro", "noexec", "allow_other"]}),
        (["--subdir", "rootfs/etc"], {"subdir": "rootfs/etc"}),
        (
            ["--all", "--filter", "a*", "--max-saves", "3", "--idle", "0.5"],
            {"all": True, "filter": "a*", "max_saves": 3, "idle": 0.5},
        ),
        (["--no-trees"], {"no_trees": True}),
        (["--driver", "erofs"], {"driver": "erofs"}),
        (["-o", "driver=fuse"], {"driver": "fuse", "options": ["driver=fuse"]}),
        (["--index"], {"index": True}),
        (["--prefetch"], {"prefetch": "background"}),
        (["--prefetch=all"], {"prefetch": "all"}),
        (["-o", "prefetch"], {"prefetch": "background", "options": ["prefetch"]}),
        (["-o", "prefetch=all"], {"prefetch": "all", "options": ["prefetch=all"]}),
        (["-o", "uid=1,gid=2,umask=022"], {"options": ["uid=1", "gid=2", "umask=022"]}),
        (["-o", "transform_symlinks"], {"options": ["transform_symlinks"]}),
        (["-o", ""], {}),
        (["-fqv"], {"foreground": True, "quiet": True, "verbose": True}),
    ],
)
def test_each_option_is_taken(words: list[str], changes: dict[str, object]) -> None:
    assert mount(*words) == changes


def test_options_may_stand_anywhere() -> None:
    for words in (["-f", "nginx", "/mnt"], ["nginx", "-f", "/mnt"], ["-f", "--", "nginx", "/mnt"]):
        assert parse_arguments(["mount", *words]) == Namespace(**DEFAULTS | {"foreground": True})


def test_long_options_may_be_spelled_after_o() -> None:
    words = [
        "host=tcp://a:1",
        "tmpdir=/a",
        "shared_blob_dir=/c",
        "log_file=/b",
        "platform=linux/386",
        "verify",
        "no_trees",
        "index",
        "quiet",
        "ro",
    ]
    assert mount("-o", ",".join(words)) == {
        "host": "tcp://a:1",
        "tmpdir": "/a",
        "shared_blob_dir": "/c",
        "log_file": "/b",
        "platform": "linux/386",
        "verify": True,
        "no_trees": True,
        "index": True,
        "quiet": True,
        "options": words,
    }


@pytest.mark.parametrize("words", [["-o", "host=a", "--host", "b"], ["--host", "b", "-o", "host=a"]])
def test_the_command_lines_own_spelling_wins(words: list[str]) -> None:
    assert mount(*words) == {"host": "b", "options": ["host=a"]}


def test_the_last_of_two_spellings_wins() -> None:
    assert mount("-o", "context=a,context=b") == {"context": "b", "options": ["context=a", "context=b"]}


def test_a_value_that_begins_with_a_dash_is_a_value() -> None:
    assert mount("-o", "context=-f") == {"context": "-f", "options": ["context=-f"]}


def test_defaults_of_one_call_are_not_those_of_the_next() -> None:
    mount("-o", "ro")
    assert mount() == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mount"], "the following arguments are required: IMAGE; see imgfs mount --help"),
        (["mount", "nginx", "/mnt", "more"], "too many arguments: more; see imgfs mount --help"),
        (
            ["mount", "nginx", "/mnt", "--verif"],
            "no option --verif; did you mean --verify? imgfs mount --help lists all",
        ),
        (["mount", "nginx", "/mnt", "--zzz"], "no option --zzz; imgfs mount --help lists all"),
        (["mount", "nginx", "/mnt", "-Z"], "no option -Z; imgfs mount --help lists all"),
        (["--versio"], "no option --versio; did you mean --version? imgfs --help lists all"),
        (["cache", "list", "--jsn"], "no option --jsn; did you mean --json? imgfs cache list --help lists all"),
        (["ls", "a", "--js", "b"], "no option --js; did you mean --json? imgfs ls --help lists all"),
        (["which", "a", "b", "--json", "c"], "too many arguments: c; see imgfs which --help"),
        (["unmount", "m"], "no command 'unmount'; did you mean umount?"),
        (["insepct", "nginx"], "no command 'insepct'; did you mean inspect?"),
        (["history", "nginx"], "no command 'history'; did you mean inspect?"),
        (["rm", "m"], "no command 'rm'; did you mean umount?"),
        (["ps"], "no command 'ps'; did you mean list?"),
        (["zzz", "m"], "no command 'zzz'; imgfs --help lists the commands"),
        (["a\x1b[31m", "m"], "no command 'a\\x1b[31m'; imgfs --help lists the commands"),
        (["cache", "lst"], "no command 'cache lst'; did you mean cache list?"),
        (["help", "moutn"], "no command 'moutn'; did you mean mount?"),
        (["mount", "nginx", "/mnt", "-o"], "argument -o: expected one argument; see imgfs mount --help"),
        (["mount", "nginx", "/mnt", "-o", "host"], "option host takes a value"),
        (["mount", "--prefetch=some", "a", "/mnt"], "--prefetch takes no value or all; see imgfs mount --help"),
        (["mount", "--prefetch=all=1", "a", "/mnt"], "--prefetch takes no value or all; see imgfs mount --help"),
        (["mount", "--prefetch=", "a", "/mnt"], "--prefetch takes no value or all; see imgfs mount --help"),
        (["mount", "--verify=yes", "a", "/mnt"], "--verify takes no value; see imgfs mount --help"),
        (["mount", "nginx", ""], "MOUNTPOINT is empty"),
        (["umount", "/mnt", ""], "MOUNTPOINT is empty"),
        (["mount", "nginx", "/mnt", "--tmpdir", ""], "--tmpdir is empty"),
        (["ls", "oci:x", "--shared-blob-dir", ""], "--shared-blob-dir is empty"),
        (["mount", "nginx", "/mnt", "-o", "log_file="], "--log-file is empty"),
        (["cache", "list", "--cache-dir="], "--cache-dir is empty"),
        (["umount"], "the following arguments are required: MOUNTPOINT; see imgfs umount --help"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_arguments(words)
    assert str(caught.value) == message
    assert main(words) == 2
    assert capsys.readouterr() == ("", f"imgfs: {message}\n")


def test_an_unknown_command_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"^no command 'moun'; did you mean mount\?$"):
        parse_arguments(["moun"])


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], "usage: imgfs COMMAND "),
        (["help"], "usage: imgfs COMMAND "),
        (["help", "mount"], "usage: imgfs mount "),
        (["help", "cache", "list"], "usage: imgfs cache list "),
        (["help", "help"], "usage: imgfs help "),
        (["help", "--help"], "usage: imgfs help "),
        (["cache"], "usage: imgfs cache COMMAND "),
        (["--help"], "usage: imgfs "),
        (["mount", "--help"], "usage: imgfs mount "),
        (["umount", "-h"], "usage: imgfs umount "),
    ],
)
def test_help_is_shown(capsys: pytest.CaptureFixture[str], words: list[str], shown: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    out, err = capsys.readouterr()
    assert out.startswith(shown)
    assert err == ""


def test_argparse_takes_each_help_for_a_format() -> None:
    def check(parser: Parser) -> None:
        parser.format_help()  # from Python 3.14 on, it is tried where an option is added
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for below in action.choices.values():
                    check(below)

    check(program_parser())


@pytest.mark.parametrize("words", [["--version"], ["-v"], ["version"]])
def test_the_version_is_shown(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr() == (f"imgfs {__version__}\n", "")


@pytest.mark.parametrize("words", [["--version", "--verbose"], ["-v", "--verbose"], ["version", "--verbose"]])
def test_the_verbose_version_is_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    names = [re.split(r"[ :]", line)[0] for line in out.splitlines()]
    assert names == ["imgfs", "Python", "pyfuse3", "trio", "Linux", "driver", "driver"]
    assert re.search(rf"^pyfuse3 {metadata.version('pyfuse3')}, libfuse \d+\.\d+", out, re.MULTILINE)
    assert re.search(r"^driver fuse: /dev/fuse ", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "image", "paths"),
    [
        (["ls", "a", "-l", "/b", "-1", "/c"], "a", ["/b", "/c"]),
        (["cat", "--layer", "1", "a", "/b"], "a", ["/b"]),
        (["ls", "-trS", "a"], "a", []),
    ],
)
def test_operands_may_stand_behind_options(words: list[str], image: str, paths: list[str]) -> None:
    found = parse_arguments(words)
    assert (found.image, found.paths) == (image, paths)


def test_unmounting_what_is_no_mount_is_a_mount_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["umount", str(tmp_path)]) == 9
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"imgfs: {tmp_path}")
    assert err.count("\n") == 1


LIE = Archive(layers=[b"a lie"], config=image_config(LAYERS[:1]), config_name="c", layer_names=["a"]).data


@pytest.mark.parametrize(
    ("build", "words", "code"),
    [
        (Archive().data, ["./x.tar", "mnt", "-o", "remount"], 2),
        (Archive().data, ["X", "mnt"], 2),
        (Archive().data, ["\udcff", "mnt"], 2),
        (Archive().data, ["nginx", "mnt", "-H", "a", "--context", "b"], 2),
        (Archive().data, ["./x.tar", "mnt", "--platform", "linux/"], 2),
        (Archive().data, ["./x.tar", "mnt", "-o", "uid=root"], 2),
        (Archive().data, ["nginx", "mnt", "-H", "unix:///nonexistent/docker.sock"], 3),
        (Archive().data, ["./gone.tar", "mnt"], 4),
        (Archive().data, ["docker-archive:x.tar:other", "mnt"], 4),
        (bytes, ["./x.tar", "mnt"], 5),
        (LIE, ["./x.tar", "mnt", "--verify"], 6),
        (lambda: archive_of(member("repositories", b"{}")), ["./x.tar", "mnt"], 7),
        (Archive().data, ["./x.tar", "mnt", "--log-file", "gone/log"], 8),
        (Archive().data, ["./x.tar", "gone"], 9),
        (Archive().data, ["./x.tar", "\udcff\n\x1b"], 9),
        (Archive().data, ["./x.tar", "x.tar"], 9),
        (Archive().data, ["./x.tar", "."], 9),
    ],
)
def test_each_class_of_errors_has_its_exit_code_and_one_line(
    tmp_path: Path, build: Callable[[], bytes], words: list[str], code: int
) -> None:
    (tmp_path / "x.tar").write_bytes(build())
    (tmp_path / "mnt").mkdir()
    # In the foreground: no log is opened.
    done = subprocess.run([COMMAND, "mount", "-f", *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("imgfs: ")
    assert done.stderr.count("\n") == 1
    assert done.stderr[:-1].isprintable()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mnt", "x.tar"]
