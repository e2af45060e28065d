"""Random stacks of layers in which links, whiteouts and odd names stand in the way of everything."""

import posixpath
import random
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tests.support.changesets import About, changeset, fifo, file, folder, hard_link, opaque, symlink, whiteout

NAMES = ("a", "b", "c", "lib", "usr")
ODD_NAMES = ("ü", "new\nline", " ", "n" * 101, ".wh", "wh.a", "..a", "...", ".wh.b", ".wh..wh.plnk")
_KINDS = {"file": 30, "folder": 18, "symlink": 20, "hard link": 12, "whiteout": 12, "opaque": 5, "fifo": 3}
_TIMES = (1_500_000_000_000_000_000, 1_400_000_000_000_000_000, 0)


class Member(NamedTuple):
    """A member of a layer."""

    kind: str
    path: str
    other: str = ""
    """A link's target, a file's text."""
    about: About = About(mtime_ns=_TIMES[0])

    def data(self) -> bytes:
        """Return the member as a tar has it."""
        match self.kind:
            case "file":
                return file(self.path, self.other.encode(), self.about)
            case "symlink":
                return symlink(self.path, self.other, self.about)
            case "hard link":
                return hard_link(self.path, self.other, self.about)
            case "folder" | "fifo":
                return folder(self.path, self.about) if self.kind == "folder" else fifo(self.path, self.about)
        return whiteout(self.path) if self.kind == "whiteout" else opaque(self.path)

    def __str__(self) -> str:
        """Return a short notation: ``d/``, ``f=text``, ``l@->target``, ``h&target``, ``w:hidden``, ``o:directory``."""
        short = {"file": "{}={}", "folder": "{}/", "symlink": "{}@->{}", "hard link": "{}&{}", "fifo": "{}|"}
        text = short.get(self.kind, self.kind[0] + ":{}").format(self.path, self.other)
        about = self.about
        if self.kind in ("whiteout", "opaque") or about == Member("", "").about:
            return repr(text)[1:-1]
        xattrs = "".join(f",{key.decode()}" for key in about.xattrs)
        return f"{text!r:.300}"[1:-1] + f"[{about.mode:o},{about.uid},t{about.mtime_ns // 10**9}{xattrs}]"


Layer = tuple[Member, ...]
Stack = tuple[Layer, ...]


def tars(stack: Stack) -> list[bytes]:
    """Return the tars of a stack's layers."""
    return [changeset(*(member.data() for member in layer)) for layer in stack]


def described(stack: Stack) -> str:
    """Return a stack in short notation, the base first."""
    return " ‖ ".join(" ".join(map(str, layer)) for layer in stack)


def smaller(stack: Stack) -> Iterator[Stack]:
    """Yield the stack without each layer and each member in turn."""
    if len(stack) > 1:
        yield from (stack[:number] + stack[number + 1 :] for number in range(len(stack)))
    for number, at in places(stack):
        yield without(stack, number, at)


def places(stack: Stack) -> Iterator[tuple[int, int]]:
    """Yield the places of all members: layer, and which of it."""
    return ((number, at) for number, layer in enumerate(stack) for at in range(len(layer)))


def without(stack: Stack, number: int, at: int) -> Stack:
    """Return the stack without one member."""
    layer = stack[number]
    return (*stack[:number], layer[:at] + layer[at + 1 :], *stack[number + 1 :])


def up_to(stack: Stack, number: int, at: int) -> Stack:
    """Return the stack up to a member, with it."""
    return (*stack[:number], stack[number][: at + 1])


class _Drawing:
    """A stack in the making.  Most members make sense: engines refuse a whole layer for one that does not."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._names = NAMES if rng.random() < 0.8 else (*NAMES, *ODD_NAMES)
        self._detours = 0.12 if rng.random() < 0.3 else 0.0
        self._varied = rng.random() < 0.3
        self._senseless = rng.choice((0.0, 0.0, 0.02, 0.1))
        self._lower: dict[str, Member] = {}
        self._here: dict[str, Member] = {}

    def layer(self, length: int) -> Layer:
        """Return the next layer."""
        members: list[Member] = []
        while len(members) < length:
            path, member = self._member()
            if self._sensible(path, member) or self._rng.random() < self._senseless:
                members.append(member._replace(path=self._detour(member.path)))
                self._here[_key(path, member.kind)] = member._replace(path=path)
        self._lower |= self._here
        self._here = {}
        return tuple(members)

    def _sensible(self, path: str, member: Member) -> bool:
        """Return whether most peers take *member*, which is at *path*, after the members of the layer before it."""
        here = self._here
        if _key(path, member.kind) in here:
            return False
        if member.kind == "opaque" and any(f"{at}.wh.{name}" in here for at, name in _steps(path)):
            return False
        parents = [path[:at] for at, letter in enumerate(path) if letter == "/"]
        if any(here[above].kind != "folder" for above in parents if above in here):
            return False
        if path != member.path and parents and not any(there.startswith(parents[-1]) for there in here):
            return self._rng.random() < 0.2  # a link to what its layer does not have
        if member.kind != "folder" and any(there.startswith(path + "/") for there in here):
            return False
        target = posixpath.normpath(member.other).lstrip("./")
        return {
            "whiteout": path not in here,
            "symlink": self._through(path, member) != path,
            "hard link": target != path and self._is_file(self._real(target)),
        }.get(member.kind, True)

    def _is_file(self, path: str) -> bool:
        """Return whether a hard link to *path* is one to a file of its layer; rarely of one below."""
        if path in self._here or self._rng.random() < 0.9:
            return path in self._here and self._here[path].kind not in ("folder", "whiteout", "opaque")
        return path in self._lower

    def _member(self) -> tuple[str, Member]:
        """Return a member, and where it really is if links of its layer lead there."""
        rng = self._rng
        kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
        match kind:
            case "whiteout":
                path = self._known(self._lower)
            case "opaque":
                path = self._known(self._lower | self._here, "folder")
            case _:
                path = self._path()
        if rng.random() < 0.25:
            path = self._alias(path, self._here if rng.random() < 0.6 else self._lower)
        other = {"file": str(rng.randrange(100)), "symlink": self._target(path), "hard link": self._linked()}
        member = Member(kind, path, other.get(kind, ""), self._about(kind))
        return self._real(path), member

    def _path(self) -> str:
        rng = self._rng
        draw, name = rng.random(), rng.choice(self._names)
        if draw < 0.25:
            return name
        if draw < 0.35:
            return "/".join(rng.choices(self._names, k=rng.randint(2, 4)))
        if draw < 0.5:  # a name that a layer below has
            return self._known(self._lower)
        parent = self._known(self._here if rng.random() < 0.65 else self._lower, "folder", "symlink")
        return f"{parent}/{name}" if parent.count("/") < 4 else name

    def _known(self, members: Mapping[str, Member], *kinds: str) -> str:
        """Return the path of one of *members*, rarely one that may be nowhere."""
        paths = [path for path, member in members.items() if path and (not kinds or member.kind in kinds)]
        paths = [path for path in paths if members[path].kind not in ("whiteout", "opaque")]
        if not paths or self._rng.random() < 0.05:
            return "/".join(self._rng.choices(self._names, k=self._rng.randint(1, 2)))
        path = self._rng.choice(paths)
        above = path.rpartition("/")[0]
        return above if above and self._rng.random() < 0.1 and not kinds else path

    def _through(self, path: str, link: Member) -> str:
        """Return where a symbolic link at *path* leads, as far as its text says so."""
        return posixpath.normpath(posixpath.join("/", posixpath.dirname(path), link.other)).strip("/")

    def _alias(self, path: str, members: Mapping[str, Member]) -> str:
        """Return *path* by another way, if one of *members* is a link to a directory on it."""
        links = [(there, self._through(there, link)) for there, link in members.items() if link.kind == "symlink"]
        ways = [there + "/" + path[len(to) :].strip("/") for there, to in links if to and path.startswith(to + "/")]
        return self._rng.choice(ways) if ways else path

    def _real(self, path: str) -> str:
        """Return where *path* leads through the links of this layer, as far as their texts say so."""
        for _ in range(4):
            for there, link in self._here.items():
                if link.kind == "symlink" and path.startswith(there + "/"):
                    path = (self._through(there, link) + path[len(there) :]).strip("/")
                    break
            else:
                return path
        return path

    def _target(self, path: str) -> str:
        """Return where a symbolic link at *path* leads."""
        rng = self._rng
        known = self._known(self._here if rng.random() < 0.75 else self._lower, "folder", "folder", "symlink", "file")
        up = "../" * path.count("/")
        targets = {
            up + known: 55,
            "/" + known: 25,
            "../" * rng.randint(1, 4) + known: 5,
            rng.choice(self._names): 5,
            "no/where": 3,
            ".": 2,
            "..": 2,
            "/": 2,
            f"{known}/../{rng.choice(self._names)}": 2,
            f"./{up}/{known}//": 3,
        }
        return rng.choices(list(targets), list(targets.values()))[0]

    def _linked(self) -> str:
        """Return what a hard link leads to: a file of its layer, by one way or another, or of one below."""
        rng = self._rng
        here = rng.random() < 0.9
        path = self._known(self._here if here else self._lower, "file", "symlink", "hard link", "fifo")
        if rng.random() < 0.4:
            path = self._alias(path, self._here if here else self._here | self._lower)
        return self._detour(path)

    def _detour(self, path: str) -> str:
        """Return another way to write *path*, now and then."""
        rng = self._rng
        if rng.random() >= self._detours:
            return path
        first, _, rest = path.partition("/")
        name = rng.choice(self._names)
        ways: tuple[str, ...] = ("/" + path, "./" + path, "../" + path, f"{name}/../{path}", f"{first}/../{path}")
        if rest:
            ways += (f"{first}/./{rest}", f"{first}//{rest}", f"{first}/{name}/../{rest}")
        return rng.choice(ways)

    def _about(self, kind: str) -> About:
        rng = self._rng
        usual = {"folder": 0o755, "symlink": 0o777}.get(kind, 0o644)
        if not self._varied:
            return About(usual, mtime_ns=_TIMES[0])
        mode = usual if kind == "symlink" else rng.choice((usual, 0o600, 0o750, 0o4755))
        xattrs = {b"user.x": b"%d" % rng.randrange(3)} if kind in ("file", "folder") and rng.random() < 0.2 else {}
        owner = rng.randrange(3)
        return About(mode, owner, owner, rng.choice(_TIMES), xattrs)


def _steps(path: str) -> Iterator[tuple[str, str]]:
    """Yield each component of *path*, after what comes before it."""
    above = ""
    for name in path.split("/"):
        yield above, name
        above += f"{name}/"


def _key(path: str, kind: str) -> str:
    """Return the cleaned name of a member."""
    if kind == "opaque":
        return f"{path}/.wh..wh..opq"
    above, slash, name = path.rpartition("/")
    return f"{above}{slash}.wh.{name}" if kind == "whiteout" else path


def drawn(rng: random.Random) -> Stack:
    """Return a random stack of one to three layers."""
    drawing = _Drawing(rng)
    return tuple(drawing.layer(rng.randint(1, 7)) for _ in range(rng.choice((1, 2, 2, 2, 3))))
