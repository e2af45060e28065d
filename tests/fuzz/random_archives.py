"""Archives of random parts, honest and lying ones, and damage to them, all from a `random.Random`: a seed says all.

Whatever plays the dice may be behind it: a seed, hypothesis, or the bytes that a fuzzer chooses.
"""

import random
from collections.abc import Callable

from fusefs.tar.header import BLOCK, is_header
from tests.support.builders import extended, header, pax, resealed
from tests.support.changesets import (
    About,
    device,
    fifo,
    file,
    folder,
    gnu_sparse,
    hard_link,
    member,
    opaque,
    pax_sparse,
    symlink,
    whiteout,
)

Random = random.Random
Part = Callable[[Random], bytes]

_WORDS = ("a", "b", "c", "d", "etc", "passwd", "lib", "long" * 30, "x" * 99, "x" * 100, "ü", "with space", "n" * 255)
_SIZES = (0, 1, 511, 512, 513, 1024, 5000)
_LIES = (
    *(b"%011o\0" % size for size in (0, 1, 511, 512, 1 << 20, 8**11 - 1)),
    b"77777777777 ",
    b"-0000000001\0",
    b"0x123\0\0\0\0\0\0\0",
    b"\0" * 12,
    b" " * 12,
    b"\x80" + bytes(10) + b"\x10",
    b"\x80" + b"\xff" * 11,
    b"\xff" * 12,
    b"\x80\0\0\0\x40" + bytes(7),
    b"\x80\0\0\0\x7f" + b"\xff" * 7,
)
"""Size fields: right, huge, negative, base-256, no numbers."""
_RECORDS: tuple[tuple[bytes, tuple[bytes, ...]], ...] = (
    (b"size", (b"0", b"1", b"512", b"99999999999999999999", b"9223372036854775807", b"-1", b"x", b"")),
    (b"path", (b"p", b"a/b", b"../up", b"/abs", b"d/", b"a\0b", b"", b"." * 300)),
    (b"linkpath", (b"a", b"../../etc", b"", b"l" * 5000)),
    (b"mtime", (b"1.5", b"-1.000000001", b"99999999999999999999999", b"nan", b"1.", b".5")),
    (b"uid", (b"7", b"-1", b"4294967295", b"x")),
    (b"gid", (b"7", b"99999999999999999999")),
    (b"SCHILY.xattr.user.x", (b"1", b"", b"\0\1", b"y" * 2000)),
    (b"LIBARCHIVE.xattr.user%2Ez", (b"MQ", b"!", b"")),
    (b"GNU.sparse.map", (b"0,1", b"0,1,1", b"5,5,3,3", b"0,99999999999", b",", b"x,1")),
    (b"GNU.sparse.size", (b"10", b"9223372036854775807", b"-1", b"99999999999999999999")),
    (b"GNU.sparse.numblocks", (b"1", b"1000000000")),
    (b"GNU.sparse.offset", (b"0", b"7")),
    (b"GNU.sparse.numbytes", (b"1", b"0")),
    (b"GNU.sparse.major", (b"1", b"0", b"2")),
    (b"GNU.sparse.minor", (b"0",)),
    (b"GNU.sparse.realsize", (b"10", b"0", b"9223372036854775808")),
    (b"GNU.sparse.name", (b"s", b"../s", b"")),
)


def _path(rng: Random) -> str:
    return "/".join(rng.choice(_WORDS) for _ in range(rng.randint(1, 3)))


def _data(rng: Random) -> bytes:
    return bytes([rng.randint(0, 255)]) * rng.choice(_SIZES)


def _about(rng: Random) -> About:
    xattrs = {b"user.k": b"v"} if rng.randint(0, 9) == 0 else {}
    mtime = rng.choice((0, 10**9, 1234567890_000000001, -5 * 10**9))
    return About(rng.choice((0o644, 0o7777, 0)), rng.choice((0, 1000, 1 << 22)), 0, mtime, xattrs)


def _runs(rng: Random) -> tuple[int, list[tuple[int, bytes]]]:
    runs, position = [], 0
    for _ in range(rng.randint(1, 6)):  # GNU tar refuses a map without an entry
        position += 512 * rng.randint(0, 40)
        data = bytes([rng.randint(1, 255)]) * (512 * rng.randint(1, 2))
        runs.append((position, data))
        position += len(data)
    return position + rng.choice((0, 1, 4096)), runs


def _old_sparse(rng: Random) -> bytes:
    size, runs = _runs(rng)
    return gnu_sparse(rng.choice(_WORDS), size, runs)


def _new_sparse(rng: Random) -> bytes:
    size, runs = _runs(rng)
    return pax_sparse(rng.choice(("0.0", "0.1", "1.0")), rng.choice(_WORDS), size, runs)


HONEST: tuple[Part, ...] = (
    lambda rng: file(_path(rng), _data(rng), _about(rng)),
    lambda rng: folder(_path(rng) + rng.choice(("", "/")), _about(rng)._replace(mode=0o755)),
    lambda rng: symlink(_path(rng), rng.choice(("a", "/etc/passwd", "../../up", "b/" * 80))),
    lambda rng: hard_link(_path(rng), _path(rng)),
    lambda rng: fifo(_path(rng)),
    lambda rng: device(_path(rng), rng.choice("cb"), rng.randint(0, 4095), rng.randint(0, 1 << 18)),
    lambda rng: whiteout(_path(rng)) if rng.randint(0, 3) else opaque(rng.choice(_WORDS[:5])),
    lambda rng: file("./" + _path(rng), _data(rng)),
    lambda rng: file("/" + _path(rng), _data(rng)),
    lambda rng: pax({"comment": "all"}, b"g") + file(_path(rng), _data(rng)),
    _old_sparse,
    _new_sparse,
)
"""Parts that every tar reader has to read alike."""


def _records(rng: Random) -> bytes:
    """Return a PAX header, mostly with nonsense in it."""
    chosen = [rng.choice(_RECORDS) for _ in range(rng.randint(0, 5))]
    records = {key.decode(): rng.choice(values) for key, values in chosen}
    raw = pax(records, rng.choice((b"x", b"x", b"x", b"g")))
    if rng.randint(0, 4) == 0:  # a length that is wrong
        raw = raw[:BLOCK] + raw[BLOCK:].replace(b" ", rng.choice((b"9 ", b"", b"0 ")), 1)
    return raw[: len(raw) // BLOCK * BLOCK]


def _lying(rng: Random) -> bytes:
    typeflag = rng.choice(
        (b"0", b"\0", b"1", b"2", b"3", b"5", b"6", b"7", b"S", b"x", b"g", b"L", b"K", b"V", b"\xff")
    )
    magic = rng.choice((b"ustar\x0000", b"ustar  \0", bytes(8)))
    name = rng.choice((b"a", b"d/", b"..", b"/", b"", b"a/../b", b"./", b"x" * 100))
    return header(name, 0, typeflag, rng.choice((b"", b"a", b"..")), magic=magic, size_field=rng.choice(_LIES))


def _lying_sparse(rng: Random) -> bytes:
    size, runs = _runs(rng)
    pairs = [
        (rng.choice((0, 1, 512, 1 << 33, (1 << 63) - 1)), rng.choice((0, 1, 512, 1 << 40)))
        for _ in range(rng.randint(0, 30))
    ]
    name = rng.choice(_WORDS)
    if rng.randint(0, 1):
        return gnu_sparse(name, size, runs, pairs=pairs)
    return pax_sparse(rng.choice(("0.0", "0.1", "1.0")), name, size, runs, pairs=pairs)


LYING: tuple[Part, ...] = (
    *HONEST,
    _lying,
    _lying,
    _lying_sparse,
    _records,
    lambda rng: _records(rng) + file(_path(rng), _data(rng)),
    lambda rng: _records(rng) + _lying(rng),
    lambda rng: extended(rng.choice((b"L", b"K")), _path(rng).encode() * rng.randint(0, 30)),
    lambda _: extended(b"L", b"../up\0") + file("short"),
    lambda rng: member(_path(rng), rng.choice((b"0", b"5", b"2")), target="t", size=rng.choice(_SIZES)),
    lambda _: bytes(BLOCK),
    lambda rng: rng.choice((b"\0", b"g", b"\xff", b"7")) * BLOCK,
    lambda rng: resealed(header("o", 5), rng.randint(0, 511), bytes([rng.randint(0, 255)])),
)
"""Those, and what nobody should write."""

_ENDS = (bytes(1024), bytes(10240), bytes(512), b"", bytes(1024) + b"garbage", b"\1" * 100)


def archive(rng: Random, parts: tuple[Part, ...] = LYING) -> bytes:
    """Return an archive of some of *parts*; of `HONEST` ones with a proper end."""
    data = [rng.choice(parts)(rng) for _ in range(rng.randint(0, 8))]
    if parts is HONEST:
        return b"".join(data) + _ENDS[0]
    if data and rng.randint(0, 4) == 0:
        data.append(rng.choice(data))
    return b"".join(data) + rng.choice(_ENDS)


def _flip(data: bytes, rng: Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randint(0, 7)]) + data[place + 1 :]


def _cut(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _moved(data: bytes, rng: Random) -> bytes:
    """Put a copy of some blocks somewhere else, over what is there or between."""
    count = len(data) // BLOCK + 1
    start, to = rng.randrange(count) * BLOCK, rng.randrange(count) * BLOCK
    blocks = data[start : start + BLOCK * rng.randint(1, 4)]
    return data[:to] + blocks + data[to + (len(blocks) if rng.randint(0, 1) else 0) :]


def _lost(data: bytes, rng: Random) -> bytes:
    start = rng.randrange(len(data) // BLOCK + 1) * BLOCK
    return data[:start] + data[start + BLOCK * rng.randint(1, 3) :]


def _resealed(data: bytes, rng: Random) -> bytes:
    """Change a byte of a header and make its checksum right again."""
    headers = [start for start in range(0, len(data) - BLOCK + 1, BLOCK) if is_header(data[start : start + BLOCK])]
    if not headers:
        return data
    start = rng.choice(headers)
    field = rng.choice((*range(124, 136), 156, 156, 156, 257, 263, 482, rng.randint(0, 511)))
    return (
        data[:start]
        + resealed(data[start : start + BLOCK], field, bytes([rng.randint(0, 255)]))
        + data[start + BLOCK :]
    )


def _other_size(data: bytes, rng: Random) -> bytes:
    headers = [start for start in range(0, len(data) - BLOCK + 1, BLOCK) if is_header(data[start : start + BLOCK])]
    if not headers:
        return data
    start = rng.choice(headers)
    return data[:start] + resealed(data[start : start + BLOCK], 124, rng.choice(_LIES)) + data[start + BLOCK :]


_DAMAGES = (_flip, _cut, _moved, _lost, _resealed, _other_size)


def damaged(data: bytes, rng: Random) -> bytes:
    """Return *data* with one to three damages."""
    for _ in range(rng.randint(1, 3)):
        data = rng.choice(_DAMAGES)(data or bytes(BLOCK), rng)
    return data
