"""The user of a container, by the files of the image."""

from pathlib import Path

import pytest

from fusefs.container.identity import Identity, identity_of
from fusefs.errors import Unavailable

PASSWD = b"""root:x:0:0::/root:/bin/sh
\xff:x:7:7::/odd:/bin/sh
web:x:33:34::/srv:/bin/sh
bad:x:y:1::/:
huge:x:4294967295:0::/:
long:x:%s:0::/:
""" % (b"9" * 5000)
GROUP = b"root:x:0:\nweb:x:34:\nmore:x:40:root,web\nshort\n"
USERS = {
    "": Identity(0, 0, (40,), "/root"),
    "0": Identity(0, 0, (40,), "/root"),
    "web": Identity(33, 34, (40,), "/srv"),
    "33": Identity(33, 34, (40,), "/srv"),
    "web:0": Identity(33, 0, (), "/srv"),
    "web:more": Identity(33, 40, (), "/srv"),
    "1000": Identity(1000, 0, (), "/"),
    "1000:1001": Identity(1000, 1001, (), "/"),
    "0" * 5000 + "5": Identity(5, 0, (), "/"),
    ":5": Identity(0, 5, (), "/root"),
}


@pytest.fixture(name="root")
def root_directory(tmp_path: Path) -> str:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_bytes(PASSWD)
    (tmp_path / "etc" / "group").write_bytes(GROUP)
    return str(tmp_path)


@pytest.mark.parametrize("user", USERS)
def test_a_user_is_found_as_docker_run_does(root: str, user: str) -> None:
    assert identity_of(user, root) == USERS[user]


@pytest.mark.parametrize(
    "user",
    [
        "nobody",
        "bad",
        "web:none",
        "huge",
        "long",
        "\u0663",
        "1:\u0663",
        "4294967295",
        "99999999999999999999",
        "-1",
        "\x1b",
        "9" * 5000,
        "1:" + "9" * 5000,
    ],
)
def test_other_users_are_errors(root: str, user: str) -> None:
    with pytest.raises(Unavailable) as caught:
        identity_of(user, root)
    assert str(caught.value).isprintable()


def test_files_that_are_missing_or_none_name_nobody(tmp_path: Path) -> None:
    assert identity_of("", str(tmp_path)) == Identity(0, 0, (), "/")
    (tmp_path / "etc" / "passwd").mkdir(parents=True)
    assert identity_of("5", str(tmp_path)) == Identity(5, 0, (), "/")
