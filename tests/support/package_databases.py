"""Databases of packages: texts of dpkg and apk, and rpm's in SQLite."""

import sqlite3
import struct
from collections.abc import Sequence
from contextlib import closing

_NAME, _VERSION, _RELEASE, _EPOCH, _ARCHITECTURE = 1000, 1001, 1002, 1003, 1022
TABLE = "CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)"


def dpkg_status(*packages: tuple[str, str], architecture: str = "amd64", state: str = "installed") -> bytes:
    """Return a ``status`` of packages, each with name and version."""
    return "\n".join(
        f"Package: {name}\nStatus: install ok {state}\nMaintainer: x\nArchitecture: {architecture}\n"
        f"Version: {version}\nDescription: text\n Package: continued\n .\n"
        for name, version in packages
    ).encode()


def apk_installed(*packages: tuple[str, str]) -> bytes:
    """Return an ``installed`` of packages, each with name and version."""
    return "".join(f"C:Q1x=\nP:{name}\nV:{version}\nA:x86_64\nT:text: P:x\n\n" for name, version in packages).encode()


def rpm_header(name: str, version: str, release: str, epoch: int | None = None) -> bytes:
    """Return the header of a package."""
    data, entries = b"", []
    for tag, text in ((_NAME, name), (_VERSION, version), (_RELEASE, release), (_ARCHITECTURE, "x86_64")):
        entries.append((tag, 6, len(data), 1))
        data += text.encode() + b"\0"
    if epoch is not None:
        data += bytes(-len(data) % 4)
        entries.append((_EPOCH, 4, len(data), 1))
        data += struct.pack(">I", epoch)
    return struct.pack(">II", len(entries), len(data)) + b"".join(struct.pack(">4I", *one) for one in entries) + data


def rpm_database(*headers: bytes, statements: Sequence[str] = (TABLE,)) -> bytes:
    """Return a database with *headers*, made with *statements*, and marked as one with a write-ahead log."""
    with closing(sqlite3.connect(":memory:")) as database:
        for statement in statements:
            database.execute(statement)
        for header in headers:
            database.execute("INSERT INTO Packages (blob) VALUES (?)", (header,))
        database.commit()
        data = database.serialize()
    return data[:18] + b"\2\2" + data[20:]
