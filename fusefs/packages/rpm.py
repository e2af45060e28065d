"""rpm's database: the SQLite file ``rpmdb.sqlite``, which is hostile input.

SQLite reads a copy in memory, so no journal and no write-ahead log is looked for.  Of its schema only an ordinary table
`Packages` is used; views, virtual tables, functions and all statements but two are refused, and its work, its time and
the bytes that it returns have limits.
"""

import re
from collections.abc import Iterator
from contextlib import closing
from time import monotonic
from typing import TYPE_CHECKING

from fusefs.content.protocol import Content
from fusefs.errors import InvalidImage, Unsupported
from fusefs.log import logger
from fusefs.packages.database import Package, file_at
from fusefs.packages.rpm_header import package_in
from fusefs.text import printable
from fusefs.tree.node import Tree

if TYPE_CHECKING:
    import sqlite3

log = logger(__name__)

_FOLDERS = (b"/usr/lib/sysimage/rpm", b"/var/lib/rpm")
"""The first one is that of newer distributions, and the other then a link to it."""
_FILE = b"/rpmdb.sqlite"
_OTHERS = (b"/Packages", b"/Packages.db")
"""Databases of Berkeley DB and ndb."""
_MAX_SIZE = 256 << 20
_MAX_HEADER = 32 << 20
"""Bytes of a database, and of one header in it."""
_LEAST_HEADER = 16
_PLAIN_TABLE = re.compile(r"CREATE TABLE [^()]*\([^()]*\)")
"""A table whose columns are stored: the functions of others may take any time, and the authorizer is not asked."""
_STEP, _MAX_STEPS = 50, 80_000
"""Instructions of SQLite's virtual machine between two looks at the limits, and how many looks there are.

A package takes three or four.
"""
_MAX_SECONDS = 30
"""The time for a database: one instruction may follow a chain of all pages, and each row may have the same chain."""
_VERSIONS = 18
"""Offset of the two bytes that say whether the database has a write-ahead log (SQLite, "Database File Format")."""
_NO_LOG = b"\1\1"


def packages(tree: Tree) -> Iterator[Package]:
    """Yield the packages of rpm."""
    for folder in _FOLDERS:
        if content := file_at(tree, folder + _FILE):
            path = folder + _FILE
            waiting = file_at(tree, path + b"-wal")
            if waiting is not None and waiting.size:
                log.warning("%s has a write-ahead log, which is not read: packages may be missing", printable(path))
            yield from _packages(content, path)
            return
    for folder in _FOLDERS:
        for name in _OTHERS:
            if file_at(tree, folder + name):
                log.warning("%s is a database of an older rpm, which is not read", printable(folder + name))
                return


def _packages(content: Content, path: bytes) -> Iterator[Package]:
    try:
        import sqlite3  # noqa: PLC0415 - only images of rpm need it
    except ImportError:
        raise Unsupported("this Python has no module sqlite3, which the packages of rpm need") from None
    if content.size > _MAX_SIZE:
        raise InvalidImage(f"{printable(path)} has {content.size} bytes, the database of rpm at most {_MAX_SIZE}")
    data = bytearray(content.read_at(0, content.size))
    data[_VERSIONS : _VERSIONS + len(_NO_LOG)] = _NO_LOG
    deadline = monotonic() + _MAX_SECONDS
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(bytes(data))
            del data
            yield from _read(database, content.size, deadline)
    except (sqlite3.Error, ValueError) as error:
        if monotonic() >= deadline:
            raise InvalidImage(f"{printable(path)} takes more than {_MAX_SECONDS} seconds to read") from None
        raise InvalidImage(f"{printable(path)} is damaged: {printable(str(error))}") from None


def _read(database: "sqlite3.Connection", size: int, deadline: float) -> Iterator[Package]:
    """Yield the packages in *database*, a file of *size* bytes.

    Raises ValueError or an error of SQLite if it is damaged, or if the *deadline* has passed.
    """
    _restrict(database, deadline)
    # A virtual table or a view has no pages of its own.  Rows may be large, and any number of them have the name.
    found = database.execute("SELECT type, rootpage, sql FROM sqlite_master WHERE name = 'Packages' LIMIT 2").fetchall()
    if [(kind, bool(page)) for kind, page, _ in found] != [("table", True)]:
        raise ValueError("it has no table of packages")
    if not _PLAIN_TABLE.fullmatch(str(found[0][2])):
        raise ValueError("its table of packages is not one of rpm")
    for (header,) in database.execute("SELECT blob FROM Packages"):
        if monotonic() >= deadline:
            raise ValueError("it takes too long")
        if not isinstance(header, bytes):
            raise ValueError("a header is not of bytes")  # noqa: TRY004 - of the image, not of a caller
        # The rows of a table share no bytes, unless somebody made it to take long.
        size -= max(len(header), _LEAST_HEADER)
        if size < 0:
            raise ValueError("its headers are longer than the file")
        if package := package_in(header):
            yield package


def _restrict(database: "sqlite3.Connection", deadline: float) -> None:
    import sqlite3  # noqa: PLC0415 - loaded by now

    steps = 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return steps > _MAX_STEPS or monotonic() >= deadline

    allowed = (
        ("sqlite_master", "type"),
        ("sqlite_master", "rootpage"),
        ("sqlite_master", "name"),
        ("sqlite_master", "sql"),
        ("Packages", "blob"),
    )

    def authorize(action: int, table: str | None, column: str | None, _: str | None, view: str | None) -> int:
        select = action == sqlite3.SQLITE_SELECT and view is None
        read = action == sqlite3.SQLITE_READ and (table, column) in allowed and view is None
        return sqlite3.SQLITE_OK if select or read else sqlite3.SQLITE_DENY

    database.execute("PRAGMA trusted_schema = OFF")
    database.execute("PRAGMA cell_size_check = ON")
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_HEADER)
    database.set_progress_handler(stop, _STEP)
    database.set_authorizer(authorize)
