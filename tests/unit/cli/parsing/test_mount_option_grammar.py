"""The words after -o."""

import pytest

from fusefs.cli.parsing.mount_options import libfuse_flags, long_options, number_option, split_options
from fusefs.errors import UsageError
from tests.support.grammar import long_options_of

IGNORED = [
    *("rw", "dev", "suid", "exec", "defaults", "auto", "noauto", "user", "users", "owner", "group", "nofail"),
    *("_netdev", "relatime", "strictatime", "nodiratime", "x-systemd.automount", "x-", "comment=a=b", "comment="),
    *("norelatime", "nostrictatime", "diratime", "atime", "lazytime", "nolazytime", "sync", "async", "dirsync"),
    *("iversion", "noiversion", "mand", "nomand", "silent", "loud", "nouser", "nousers", "noowner", "nogroup"),
    "_rnetdev",
]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (",", []),
        ("ro", ["ro"]),
        ("ro,allow_other,,noexec,", ["ro", "allow_other", "noexec"]),
        (r"host=a\,b,ro", ["host=a,b", "ro"]),
        (r"host=a\\,ro", ["host=a\\", "ro"]),
        (r"host=a\\\,b", ["host=a\\,b"]),
        (r"tmpdir=\/x\=", ["tmpdir=/x="]),
        ("ends\\", ["ends\\"]),
        ("a\nb,c", ["a\nb", "c"]),
        (" ro , noexec ", [" ro ", " noexec "]),
    ],
)
def test_commas_separate_unless_they_are_escaped(text: str, words: list[str]) -> None:
    assert split_options(text) == words


def test_long_options_may_be_spelled_with_dashes_or_underscores() -> None:
    words = ["ro", "host=tcp://a:1", "context=b", "log-file=x=y", "log_file=z", "tmpdir=", "verify", "quiet", "verbose"]
    words += ["platform=linux/arm64", "no-trees", "no_trees", "index", "progress=plain", "shared-blob-dir=/x"]
    assert long_options([*words, "foreground", "x-verify"]) == [
        "--host=tcp://a:1",
        "--context=b",
        "--log-file=x=y",
        "--log-file=z",
        "--tmpdir=",
        "--verify",
        "--quiet",
        "--verbose",
        "--platform=linux/arm64",
        "--no-trees",
        "--no-trees",
        "--index",
        "--progress=plain",
        "--shared-blob-dir=/x",
        "--foreground",
    ]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("host", "option host takes a value"),
        ("log_file", "option log-file takes a value"),
        ("verify=yes", "option verify takes no value"),
        ("quiet=", "option quiet takes no value"),
        ("platform", "option platform takes a value"),
        ("no_trees=1", "option no-trees takes no value"),
        ("index=", "option index takes no value"),
        ("prefetch=some", "option prefetch takes no value or all"),
        ("prefetch=", "option prefetch takes no value or all"),
    ],
)
def test_a_long_option_takes_its_value_or_none(word: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        long_options([word])
    assert str(caught.value) == message


def test_every_long_option_of_mount_may_be_spelled_there() -> None:
    listed = long_options_of("mount")
    assert (listed.pop("help"), listed["no-cache"], listed["host"]) == (False, False, True)
    for name, takes_value in listed.items():
        word = f"{name}=1" if takes_value else name
        assert long_options([word]) == [f"--{word}"]
        assert long_options([word.replace("-", "_")]) == [f"--{word}"]
        assert libfuse_flags([word]) == ()


def test_a_sloppy_mount_ignores_unknown_words_but_remounts_nothing() -> None:
    assert libfuse_flags(["sloppy", "bogus", "noexec", "sync"]) == ("noexec",)
    with pytest.raises(UsageError) as caught:
        libfuse_flags(["remount", "sloppy"])
    assert str(caught.value) == "unknown mount option 'remount'"


def test_only_these_words_reach_libfuse_in_their_order() -> None:
    assert libfuse_flags(["noatime", "ro", "allow_other", "noexec", "nosuid", "allow_root", "nodev"]) == (
        "noatime",
        "allow_other",
        "noexec",
        "allow_root",
    )


@pytest.mark.parametrize("word", IGNORED)
def test_words_for_others_are_ignored(word: str) -> None:
    assert libfuse_flags([word]) == ()
    assert long_options([word]) == []


@pytest.mark.parametrize(
    "word", ["host=a", "log_file=b", "verify", "foreground", "platform=linux/386", "no-trees", "no_trees", "index"]
)
def test_long_options_are_not_for_libfuse(word: str) -> None:
    assert libfuse_flags([word]) == ()


@pytest.mark.parametrize(
    "word", ["remount", "bind", "fsname=x", "subtype=x", "default_permissions", "max_read=1", "RO", " ro", "help"]
)
def test_any_other_word_is_refused(word: str) -> None:
    with pytest.raises(UsageError) as caught:
        libfuse_flags(["ro", word])
    assert str(caught.value) == f"unknown mount option '{word}'"


def test_a_refused_word_is_safe_to_show() -> None:
    with pytest.raises(UsageError) as caught:
        libfuse_flags(["\x1b[2J"])
    assert str(caught.value) == "unknown mount option '\\x1b[2J'"


OURS = ["uid=0", "gid=1000", "umask=022", "transform_symlinks"]


@pytest.mark.parametrize("word", OURS)
def test_what_changes_the_files_is_not_for_libfuse(word: str) -> None:
    assert libfuse_flags([word]) == ()
    assert long_options([word]) == []


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ([], None),
        (["ro", "gid=7", "uidx=7", "x-uid=7"], None),
        (["uid=0"], 0),
        (["uid=1000"], 1000),
        (["uid=4294967294"], 4294967294),
        (["uid=1", "ro", "uid=2"], 2),
    ],
)
def test_the_last_of_several_numbers_counts(words: list[str], number: int | None) -> None:
    assert number_option(words, "uid", 10) == number


def test_a_umask_is_octal() -> None:
    assert number_option(["umask=027"], "umask", 8) == 0o27


@pytest.mark.parametrize(
    ("word", "base", "shown"),
    [
        ("uid", 10, ""),
        ("uid=", 10, ""),
        ("uid=root", 10, "root"),
        ("uid=-1", 10, "-1"),
        ("uid=4294967295", 10, "4294967295"),
        ("uid=1.0", 10, "1.0"),
        ("uid=0x10", 10, "0x10"),
        ("uid=1_0", 10, "1_0"),
        ("uid= 5", 10, " 5"),
        ("uid=+5", 10, "+5"),
        ("uid=٣", 10, "٣"),
        ("umask=0o22", 8, "0o22"),
        ("umask=1000", 8, "1000"),
        ("umask=7777777", 8, "7777777"),
        ("umask=09", 8, "09"),
        ("umask=rwx", 8, "rwx"),
    ],
)
def test_what_is_no_number_is_refused(word: str, base: int, shown: str) -> None:
    name = word.partition("=")[0]
    with pytest.raises(UsageError) as caught:
        number_option([word], name, base)
    assert str(caught.value) == f"option {name} takes a number, not '{shown}'"
