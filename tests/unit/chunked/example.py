"""A layer with a bit of everything, for both formats."""

import random

from tests.support.changesets import FILE, About, changeset, device, fifo, file, folder, hard_link, symlink, whiteout

DATA = random.Random(1).randbytes(2500)
EVERYTHING = changeset(
    folder("etc", About(mode=0o1777, uid=5, gid=6, mtime_ns=-86400 * 10**9)),
    file("etc/small", b"hello\n", About(mode=0o4755, mtime_ns=1_700_000_000 * 10**9)),
    file("data", DATA, About(xattrs={b"user.x": b"\x00\xff", b"security.capability": b"abc"})),
    file("zeros", b"x" * 1000 + bytes(2000) + b"y"),
    file("empty"),
    file("l" * 150, b"long"),
    file("ids", b"1", About(uid=3_000_000, gid=2_999_999)),
    hard_link("again", "data", FILE),
    symlink("link", "t" * 120),
    fifo("pipe"),
    device("null", "c", 1, 3),
    device("disk", "b", 8, 1),
    whiteout("etc/gone"),
)
