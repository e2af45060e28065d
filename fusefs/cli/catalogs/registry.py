"""The images of a registry as directories: ``team/app@v1`` below the folders of their repositories."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import partial

from fusefs.cli.catalogs.repositories import Repositories, is_like
from fusefs.cli.catalogs.saves import Saves, close_when_unused
from fusefs.cli.catalogs.spelling import Spelled, spelled
from fusefs.cli.catalogs.tag_lists import TagLists
from fusefs.errors import RegistryError, UsageError
from fusefs.image.opened import Opened
from fusefs.log import logger
from fusefs.mount.catalog.provider import Folder, Found, Link, Listed, Path, Question
from fusefs.oci.digest import Digest
from fusefs.oci.reference import registry_namespace
from fusefs.oci.transport import REGISTRY
from fusefs.sources import open_image
from fusefs.sources.registry.known import CATALOG, TAGS, Answer, Key, KnownRegistry
from fusefs.sources.registry.lists import is_of_referrer
from fusefs.sources.settings import Settings
from fusefs.text import printable

log = logger(__name__)

_KERNEL = 1.0
"""Seconds for which the kernel may use a name without asking; what the registry said is used for longer."""
_AT_ONCE = 16
"""Questions that are asked at the same time."""
_MAX_LISTS = 1000
"""Repositories in a directory whose tags are listed; the others are found by name."""
_MAX_NAME = 255
_MAX_CHANGES = 1000
_LATEST = "latest"


class RegistryProvider:
    """The images of a registry.  Safe under concurrency: `_lock` guards what changes."""

    questions_at_once = _AT_ONCE
    fresh_for = _KERNEL

    def __init__(self, argument: str, settings: Settings, pattern: str | None, saves: Saves) -> None:
        """Take the images with a name like *pattern*, a glob; None: all."""
        if settings.offline:
            raise UsageError("--all of a registry and --offline exclude each other: only the registry knows its images")
        host, namespace = registry_namespace(argument.removeprefix(REGISTRY.prefix))
        self.place = f"{host}/{namespace}".rstrip("/")
        self._settings = settings
        self._saves = saves
        self._known = KnownRegistry(host, namespace, settings)
        self.names = RegistryNames(self._known, Repositories(namespace), pattern)

    def begin(self) -> None:
        """Ask for the repositories; RegistryError if the registry cannot be reached.  It need not tell them."""
        self.names.asked((), [CATALOG], changed=self._known.ask(CATALOG, warns=False))
        answer = self._known.answer(CATALOG)
        assert answer is not None
        if not answer.known:
            raise RegistryError(answer.failure)
        if answer.value is None:
            log.warning(
                "the registry %s does not list its repositories: a directory lists what was looked up in it",
                printable(self.place),
            )

    def question(self, folder: Path, name: bytes | None) -> Question | None:
        """Return what the registry has to be asked before *name*, or None for all names, in *folder* is known."""
        if name is None:
            keys: Sequence[Key] = self.names.lists_of(folder)
            keys = [key for key in keys if not self._known.is_fresh(key)]
            ask = self._ask_lists
        else:
            key = self.names.key_of(folder, name)
            keys = [] if key is None or self._known.is_fresh(key) else [key]
            ask = self._ask
        if not keys:
            return None
        what = None if name is None else keys[0]  # a listing that is under way is for all who list the directory
        return Question((folder, what), partial(ask, folder, keys), partial(self._keep, folder, keys))

    def _keep(self, folder: Path, keys: Sequence[Key], seconds: float, failure: str = "") -> None:
        for key in keys:
            self._known.keep(key, seconds, failure)
        self.names.asked(folder, keys, changed=False)

    def _ask(self, folder: Path, keys: Sequence[Key]) -> None:
        for key in keys:
            self.names.asked(folder, [key], changed=self._known.ask(key))

    def _ask_lists(self, folder: Path, keys: Sequence[Key]) -> None:
        """Ask for the list of repositories, and for the tags of those in *folder*."""
        if CATALOG in keys and not self._known.is_answered(CATALOG):
            self._ask(folder, [CATALOG])
        needed = self.names.lists_of(folder)
        with self._known.holding(needed):
            keys = [key for key in needed if not self._known.is_answered(key)]
            lists = TagLists(self._known, keys, lambda key: self._ask(folder, [key]))
            lists.ask()
            for left, seconds, why in lists.left():
                self._keep(folder, left, seconds, why)

    def changes(self) -> Iterable[Path] | None:
        """Return the folders whose names may have changed since the last call; None for all."""
        return self.names.take_changes()

    def open(self, listed: Listed) -> Opened:
        """Return an image: the one that the key has been since it was opened first."""
        name, _, digest = listed.key.partition("@")
        pinned = self.names.pinned(listed.key) or digest
        argument = f"{REGISTRY.prefix}{self._known.host}/{name}{pinned and '@'}{pinned}"
        with self._saves.opening() as progress:
            settings = self._settings._replace(progress=progress)
            opened = Opened(open_image(argument, settings), settings.tmpdir, progress)
        self.names.pin(listed.key, opened.image.repo_digests[0].rpartition("@")[2])
        return opened

    def close(self, opened: Opened) -> None:
        """Close an image as soon as nobody reads from it any more."""
        close_when_unused(opened)

    def left(self, key: str) -> None:
        """Forget which image the key is."""
        self.names.unpin(key)


class RegistryNames:
    """The names in a registry, as far as they are known.  Safe under concurrency: `_lock` guards what changes.

    A tag is listed without its digest.  From the first access on, its directory is that image (it is *pinned*), and
    the registry is asked whether the tag has moved: then its name is another directory.
    """

    def __init__(self, known: KnownRegistry, repositories: Repositories, pattern: str | None) -> None:
        self._known = known
        self._repositories = repositories
        self._pattern = pattern
        self._lock = threading.Lock()
        self._pins: dict[str, dict[str, str]] = {}
        """Digests by the keys of images that are open, or were, and are still known to the kernel; by their tags."""
        self._failures: OrderedDict[Path, dict[Key, str]] = OrderedDict()
        self._changed: set[Path] | None = set()

    def listed(self, folder: Path) -> dict[bytes, Listed | Folder]:
        """Return the folders, and the tags of the repositories, in *folder*."""
        found: dict[bytes, Listed | Folder] = {}
        for base in self._repositories.folders(folder):
            found[base.encode()] = Folder()
        catalog, *answers = [self._known.answer(key) for key in self.lists_of(folder)]
        known = [answer for answer in answers or [catalog] if answer is not None]
        if known and not any(answer.known for answer in known):
            raise RegistryError(known[0].failure)
        for base, repository in self._repositories.within(folder):
            for tag in self._tags(repository):
                name = f"{base}@{tag}".encode()
                if len(name) <= _MAX_NAME and self._is_shown(repository, tag):
                    found[name] = self._image(folder, name, repository, tag)
        return found

    def is_listed(self, folder: Path, name: bytes) -> bool:
        """Return whether *name* is listed in *folder*."""
        name_of = spelled(name)
        if name_of is None or name_of.separator == ":" or name_of.digest:
            return False
        if not name_of.tag:
            return self._repositories.has_folder(folder, name_of.base)
        repository = self._repositories.named(folder, name_of.base)
        return self._repositories.has(folder, name_of.base) and self._has(repository, name_of.tag)

    def find(self, folder: Path, name: bytes) -> Found | None:
        """Return the directory, image or link *name* in *folder*."""
        name_of = spelled(name)
        if name_of is None:
            return None
        repository = self._repositories.named(folder, name_of.base)
        if name_of.digest:
            return self._by_digest(folder, name, repository, name_of.digest)
        if not name_of.tag:
            return self._by_repository(folder, name_of, repository)
        if not self._is_shown(repository, name_of.tag) or not self._has(repository, name_of.tag):
            return None
        if name_of.separator == ":":
            return Link(name_of.at())
        return self._image(folder, name, repository, name_of.tag)

    def _by_digest(self, folder: Path, name: bytes, repository: str, digest: str) -> Listed | None:
        answer = self._answer((repository, digest))
        if answer is None or answer.value is None:
            return None
        key = f"{repository}@{digest}"
        return Listed((*folder, name), key, f"{REGISTRY.prefix}{self._known.host}/{key}")

    def _by_repository(self, folder: Path, name: Spelled, repository: str) -> Found | None:
        """Return what the name of a repository alone is: a folder of others, the tag ``latest``, or nothing.

        A registry does not say which folders it has, so what is no repository may be one.
        """
        if self._repositories.has_folder(folder, name.base):
            return Folder()
        answer = self._answer((repository, TAGS))
        if answer is None:
            return None
        if answer.value is None:
            return Folder()
        has_latest = isinstance(answer.value, dict) and _LATEST in answer.value and self._is_shown(repository, _LATEST)
        return Link(name._replace(tag=_LATEST).at()) if has_latest else None

    def _answer(self, key: Key) -> Answer | None:
        """Return the last answer; RegistryError if there is none since the registry fails."""
        answer = self._known.answer(key)
        if answer is not None and not answer.known:
            raise RegistryError(answer.failure)
        return answer

    def _has(self, repository: str, tag: str) -> bool:
        """Return whether the registry has a tag, by the newest answer that tells; RegistryError if none does."""
        tags, asked = self._known.answer((repository, TAGS)), self._known.answer((repository, tag))
        answers = [answer for answer in (tags, asked) if answer is not None]
        for answer in sorted(answers, key=lambda answer: answer.at, reverse=True):
            if not answer.known:
                continue
            if answer is asked:
                return answer.value is not None
            if isinstance(answer.value, dict) and (tag in answer.value or answer.complete):
                return tag in answer.value
        for answer in answers:
            if answer.failure and not answer.known:
                raise RegistryError(answer.failure)
        return False

    def _tags(self, repository: str) -> Iterable[str]:
        answer = self._known.answer((repository, TAGS))
        listed = answer.value if answer is not None and isinstance(answer.value, dict) else {}
        return {**listed, **{tag: None for tag in self._repositories.seen(repository) if self._has(repository, tag)}}

    def _image(self, folder: Path, name: bytes, repository: str, tag: str) -> Listed:
        base = f"{repository}:{tag}"
        answer = self._known.answer((repository, tag))
        digest = str(answer.value) if answer is not None and isinstance(answer.value, Digest) else ""
        with self._lock:
            key = _key_of(base, digest, self._pins.get(base, {}))
        return Listed((*folder, name), key, f"{REGISTRY.prefix}{self._known.host}/{base}")

    def _is_shown(self, repository: str, tag: str) -> bool:
        if is_of_referrer(tag):
            return False
        if self._pattern is None:
            return True
        name = f"{repository}:{tag}"
        return is_like(name, self._pattern) or is_like(f"{self._known.host}/{name}", self._pattern)

    def error(self, folder: Path) -> str:
        """Return why names in *folder* may be missing."""
        with self._lock:
            return next(iter(self._failures.get(folder, {}).values()), "")

    def lists_of(self, folder: Path) -> list[Key]:
        """Return the lists that a listing of *folder* needs."""
        return [CATALOG, *((repository, TAGS) for _, repository in self._repositories.within(folder, _MAX_LISTS))]

    def key_of(self, folder: Path, name: bytes) -> Key | None:
        """Return what the registry has to be asked for *name*, None for a name that needs no answer."""
        name_of = spelled(name)
        if name_of is None or (not (name_of.tag or name_of.digest) and self.is_listed(folder, name)):
            return None
        repository = self._repositories.named(folder, name_of.base)
        if name_of.digest or not name_of.tag:
            return repository, name_of.digest or TAGS
        if not self._is_shown(repository, name_of.tag):
            return None
        with self._lock:
            is_pinned = f"{repository}:{name_of.tag}" in self._pins
        tags = self._known.answer((repository, TAGS))
        if not is_pinned and tags is not None and isinstance(tags.value, dict):
            fresh = self._known.is_fresh((repository, TAGS))
            if name_of.tag in tags.value or (fresh and tags.complete):
                return repository, TAGS  # one request for all that a listing gave
        return repository, name_of.tag

    def asked(self, folder: Path, keys: Sequence[Key], *, changed: bool) -> None:
        """Take note of answers to questions about names in *folder*."""
        everywhere = False
        for key in keys:
            answer = self._known.answer(key)
            if answer is None:
                continue
            if key == CATALOG:
                everywhere = changed and self._repositories.listed(answer.value)
            elif answer.known and ":" not in key[1]:
                self._repositories.found(*key, there=answer.value is not None)
            self._note(folder, key)
        with self._lock:
            if everywhere or (self._changed is not None and len(self._changed) > _MAX_CHANGES):
                self._changed = None
            elif changed and self._changed is not None:
                self._changed.add(folder)

    def _note(self, folder: Path, key: Key) -> None:
        """Note the failure, or success, of a question; after a success only lists count that are asked for again."""
        with self._lock:
            answer = self._known.answer(key)  # the newest, whoever notes it last
            failures = self._failures.pop(folder, {})
            if answer is not None and answer.failure:
                if key in failures or len(failures) < _MAX_CHANGES:
                    failures[key] = answer.failure
            elif failures:
                lists = {*self.lists_of(folder)} - {key}
                failures = {other: text for other, text in failures.items() if other in lists}
            if failures:
                self._failures[folder] = failures
            while len(self._failures) > _MAX_CHANGES:
                self._failures.popitem(last=False)

    def take_changes(self) -> Iterable[Path] | None:
        """Return the folders whose names may have changed since the last call; None for all."""
        with self._lock:
            changed, self._changed = self._changed, set()
        return changed

    def pinned(self, key: str) -> str:
        """Return the digest of an open image, empty for one that is not pinned."""
        with self._lock:
            return self._pins.get(key.partition("@")[0], {}).get(key, "")

    def pin(self, key: str, digest: str) -> None:
        """From now on, *key* is the image with this digest."""
        with self._lock:
            self._pins.setdefault(key.partition("@")[0], {}).setdefault(key, digest)

    def unpin(self, key: str) -> None:
        """Forget which image *key* is."""
        base = key.partition("@")[0]
        with self._lock:
            pins = self._pins.get(base, {})
            pins.pop(key, None)
            if not pins:
                self._pins.pop(base, None)


def _key_of(base: str, digest: str, pins: dict[str, str]) -> str:
    """Return the key of the image that a tag is now: the one that it has already, if it is among *pins*.

    The tag alone is the key of the first image.  *digest* is empty if the registry does not state it: then the image
    that was opened last is taken.
    """
    if not digest:
        return base if base in pins or not pins else next(reversed(pins))
    pinned = next((key for key, other in pins.items() if other == digest), None)
    return pinned or (f"{base}@{digest}" if pins else base)
