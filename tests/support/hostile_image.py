"""An image of two layers whose names and texts no terminal should see as they are."""

from tests.support.builders import CREATED, image_config
from tests.support.changesets import About, changeset, device, fifo, file, folder, hard_link, symlink, whiteout

HOSTILE = "\x1b[31m\x07\x7f\x9b\u202e\n"
NS = 1_500_000_000_000000000
ACCOUNTS = b"root:x:0:0::/:\nwww:x:33:33::/:\n\x1b[31m:x:34::::\nbad\n:x:35:\nx:y:notanumber:\n"
BASE = changeset(
    folder("etc"),
    file("etc/motd", b"old\n"),
    file("etc/gone", b"x"),
    file("etc/passwd", ACCOUNTS),
    file("etc/group", b"root:x:0:\nstaff:x:50:\n"),
    file("mine", b"m", About(mode=0o640, uid=33, gid=50, mtime_ns=NS)),
    file("odd", b"", About(uid=34, gid=4_000_000_000, mtime_ns=10**27)),
    file(".hidden", b""),
    folder(".dir"),
    file(".dir/in", b""),
    symlink("absolute", "/etc/motd"),
    symlink("config", "etc"),
    device("null", "c", 1, 3, About(mode=0o666)),
    fifo("pipe"),
    file(b"\xff\x1b[31m", b"odd\x1b[31m\xff\x07\n"),
    file("a", b"linked"),
    hard_link("etc/b", "a"),
)
UPPER = changeset(file("etc/motd", b"new\n"), whiteout("etc/gone"), hard_link("etc/lower", "mine"))
HISTORY = [
    {"created": CREATED, "created_by": "ADD base /"},
    {"created_by": f'CMD ["{HOSTILE}"]', "empty_layer": True},
    {"created_by": "RUN rm /etc/gone"},
]
RUN = {
    "Entrypoint": ["/e", "a b"],
    "Cmd": ["é"],
    "Env": ["A=b", f"B={HOSTILE}"],
    "ExposedPorts": {"80/tcp": {}},
    "Shell": ["/bin/ash", "-c"],
    "OnBuild": [f"RUN {HOSTILE}"],
    "Healthcheck": {"Test": ["CMD", "x"], "Interval": 30_000_000_000, "Retries": 3},
}
CONFIG = image_config([BASE, UPPER], author="me", history=HISTORY, config=RUN | {"Labels": {HOSTILE: HOSTILE}})
