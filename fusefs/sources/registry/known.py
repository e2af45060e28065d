"""What is known of a registry: its repositories, their tags, and which manifests there are.

Each answer is used for two seconds at least, and for ten times as long as it took, so a slow registry is not asked all
the time.  What a registry said before is used while it fails.
"""

import math
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from fusefs.errors import ImgfsError, Unavailable
from fusefs.image.model import Traffic
from fusefs.log import logger
from fusefs.oci.digest import Digest
from fusefs.oci.reference import RegistryReference
from fusefs.sources.registry.client import Client
from fusefs.sources.registry.lists import NameList, list_repositories, list_tags
from fusefs.sources.registry.places import Place, find_places
from fusefs.sources.registry.repository import Missing
from fusefs.sources.registry.transfer import Transfers
from fusefs.sources.settings import Settings

log = logger(__name__)

_LEAST, _MOST = 2.0, 60.0
"""Seconds for which an answer is used."""
_TIMES = 10
"""How much longer an answer is used than it took."""
_IMMUTABLE = 600.0
"""Seconds for which a manifest that was found by its digest is taken to be there."""
_TIMEOUT = 10.0
"""Seconds without progress after which a request fails: somebody waits who asked for a name."""
_MAX_LISTED = 200_000
"""Tags in the listings that are under way at a time."""
_MAX_KEPT = 300_000
"""Names in all answers; those that were asked for least recently are dropped, but none of a listing under way."""
_SAID = 600.0
"""Seconds after which a warning is repeated."""
_MAX_SAID = 1000
_MAX_CLIENTS = 128
"""Repositories whose tokens are kept."""


class Answer(NamedTuple):
    """What a registry said about one thing."""

    value: Mapping[str, None] | Digest | bool | None
    """The tags of a repository; the digest of a manifest, True if the registry does not state it; None: there is none.
    """
    known: bool
    """Whether it ever said that."""
    at: float
    """When it did, by the monotonic clock."""
    until: float
    """Until when that is used."""
    failure: str = ""
    """Why it does not say that now; empty if it does."""
    complete: bool = True
    """Whether nothing of a list is left out."""
    is_kept: bool = False
    """Whether it is used although it is older than `until` was: the registry has not answered yet."""


Key = tuple[str, str]
"""A repository, and a tag, a digest or `TAGS`; ``("", "")`` for the list of repositories."""
TAGS = ""
CATALOG: Key = ("", "")


class KnownRegistry:
    """The answers of one registry.  Safe under concurrency: `_lock` guards the dictionaries."""

    def __init__(
        self, host: str, namespace: str, settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make no request yet.  Raises Unavailable for a registry that is blocked, UsageError."""
        self.host = host
        self._namespace = namespace
        self._settings = settings
        self._clock = clock
        timeout = _TIMEOUT if settings.timeout is None else min(settings.timeout, _TIMEOUT)
        self._client = Client(settings._replace(timeout=timeout), Traffic())
        self._lock = threading.Lock()
        self._answers: OrderedDict[Key, Answer] = OrderedDict()
        self._kept = 0
        self._held: Counter[Key] = Counter()
        """The keys that listings under way need, and how many."""
        self._transfers: OrderedDict[tuple[str, bool], Transfers] = OrderedDict()
        self._said: OrderedDict[str, float] = OrderedDict()
        """Warnings, and when they were logged."""
        probe = "/".join(filter(None, (namespace, "x")))
        place = self._places(RegistryReference(host, probe, "latest", ""))[-1]
        self._prefix = place.repository.removesuffix("x")
        """How repositories of the namespace begin in the registry itself, which may be at another place."""
        self._catalog = self._client.transfers([place._replace(repository="")])

    def answer(self, key: Key) -> Answer | None:
        """Return what is known of *key*, None if nobody has asked."""
        with self._lock:
            return self._answers.get(key)

    def is_fresh(self, key: Key) -> bool:
        """Return whether what is known of *key* is used without asking."""
        answer = self.answer(key)
        return answer is not None and self._clock() < answer.until

    def is_answered(self, key: Key) -> bool:
        """Return whether *key* is fresh because the registry has answered."""
        answer = self.answer(key)
        return answer is not None and not answer.is_kept and self._clock() < answer.until

    def told_at(self, key: Key) -> float:
        """Return when the registry told *key*, by the clock; before all others if nobody has asked."""
        answer = self.answer(key)
        return -math.inf if answer is None else answer.at

    @contextmanager
    def holding(self, keys: Collection[Key]) -> Iterator[None]:
        """Drop nothing of what is known of *keys*, for a listing that needs it all."""
        with self._lock:
            self._held.update(keys)
        try:
            yield
        finally:
            with self._lock:
                for key in keys:
                    self._held[key] -= 1
                    if not self._held[key]:
                        del self._held[key]

    @property
    def too_many(self) -> str:
        """The failure of a list that finds no room."""
        return f"the registry {self.host} has more than {_MAX_LISTED:,} names in what is listed now; some are left out"

    def keep(self, key: Key, seconds: float, failure: str = "") -> None:
        """Use what is known of *key* for so many seconds more, unless it is fresh: the registry does not answer.

        *failure*: why nobody asks for it any more; it is told only of a key of which nothing is known.
        """
        now = self._clock()
        with self._lock:
            asked = self._catalog if key == CATALOG else self._transfers.get((key[0], ":" in key[1]))
            why = failure or (asked and asked.failing) or f"the registry {self.host} does not answer"
            answer = self._answers.get(key) or Answer(None, known=False, at=now, until=now, failure=why)
            if now >= answer.until or answer.is_kept:
                self._store(key, answer._replace(until=now + seconds, is_kept=not failure))

    def ask(self, key: Key, *, warns: bool = True) -> bool:
        """Ask the registry; return whether something is known now that was not before.

        *warns*: log a failure.
        """
        began = self._clock()
        value: Mapping[str, None] | Digest | bool | None = None
        failure, complete = "", True
        try:
            value, complete = self._asked(key)
        except Missing as error:
            log.debug("%s", error)
        except Unavailable as error:
            log.info("%s", error)
        except ImgfsError as error:
            failure = str(error)
        now = self._clock()
        use = _IMMUTABLE if value is not None and ":" in key[1] else min(_MOST, max(_LEAST, _TIMES * (now - began)))
        with self._lock:
            before = self._answers.get(key)
            if isinstance(value, Mapping) and not self._has_room(key, len(value)):
                failure = self.too_many
            if failure:
                use = _MOST if failure == self.too_many else _LEAST
                last = before or Answer(None, known=False, at=now, until=now)
                answer = last._replace(failure=failure, until=now + use, is_kept=False)
            else:
                answer = Answer(value, known=True, at=now, until=now + use, complete=complete)
            self._store(key, answer)
        if failure and warns:
            self._warn(failure)
        return before is None or before[:2] != answer[:2] or before.failure != answer.failure

    def _store(self, key: Key, answer: Answer) -> None:
        before = self._answers.pop(key, None)
        self._kept += _weight(answer) - (0 if before is None else _weight(before))
        self._answers[key] = answer
        excess, dropped = self._kept - _MAX_KEPT, list[Key]()
        for oldest, old in self._answers.items():
            if excess <= 0:
                break
            if oldest not in (key, CATALOG) and oldest not in self._held:
                dropped.append(oldest)
                excess -= _weight(old)
        for oldest in dropped:
            self._kept -= _weight(self._answers.pop(oldest))

    def _has_room(self, key: Key, names: int) -> bool:
        """Return whether there may be so many *names* in the answer to *key*, beside what listings hold."""
        if key == CATALOG or key not in self._held:
            return True
        held = [self._answers[other] for other in self._held if other in self._answers and other not in (key, CATALOG)]
        return names + sum(len(answer.value) for answer in held if isinstance(answer.value, Mapping)) <= _MAX_LISTED

    def _asked(self, key: Key) -> tuple[Mapping[str, None] | Digest | bool, bool]:
        repository, reference = key
        if key == CATALOG:
            return self._repositories()
        transfers = self._transfers_of(repository, by_digest=":" in reference)
        if reference == TAGS:
            return self._checked(list_tags(transfers), f"the list of tags of {self.host}/{repository}")
        return transfers.current(reference, trusts_head=True).digest or True, True

    def _repositories(self) -> tuple[Mapping[str, None], bool]:
        found, complete = self._checked(list_repositories(self._catalog), f"the list of repositories of {self.host}")
        own = self._prefix.rstrip("/")
        names: dict[str, None] = {}
        for name in found:
            if name.startswith(self._prefix):
                names["/".join(filter(None, (self._namespace, name[len(self._prefix) :])))] = None
            elif name == own:
                names[self._namespace] = None
        return names, complete

    def _checked(self, found: NameList, what: str) -> tuple[Mapping[str, None], bool]:
        if found.flaw:
            self._warn(f"{what} is used as far as it goes: {found.flaw}")
        return dict.fromkeys(found.names), not found.flaw

    def _warn(self, text: str) -> None:
        """Log a warning, unless it has been for some minutes: a registry that fails is asked every 2 s."""
        now = self._clock()
        with self._lock:
            if now < self._said.get(text, -_SAID) + _SAID:
                return
            self._said.pop(text, None)
            self._said[text] = now
            if len(self._said) > _MAX_SAID:
                self._said.popitem(last=False)
        log.warning("%s", text)

    def _places(self, reference: RegistryReference) -> list[Place]:
        return find_places(reference, self._settings.environment, insecure=self._settings.insecure)

    def _transfers_of(self, repository: str, *, by_digest: bool) -> Transfers:
        key = repository, by_digest
        with self._lock:
            if key in self._transfers:
                self._transfers.move_to_end(key)
                return self._transfers[key]
        tag, digest = ("", f"sha256:{'0' * 64}") if by_digest else ("latest", "")
        made = self._client.transfers(self._places(RegistryReference(self.host, repository, tag, digest)))
        with self._lock:
            self._transfers[key] = made
            while len(self._transfers) > _MAX_CLIENTS:
                self._transfers.popitem(last=False)
        return made


def _weight(answer: Answer) -> int:
    return 1 + (len(answer.value) if isinstance(answer.value, Mapping) else 0)
