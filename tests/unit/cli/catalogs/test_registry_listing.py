"""Listings of a registry that is slow, or that has more than fits."""

from collections.abc import Callable, Mapping

import pytest

from fusefs.cli.catalogs import tag_lists
from fusefs.cli.catalogs.registry import RegistryProvider
from fusefs.cli.catalogs.saves import Saves
from fusefs.mount.catalog.provider import Question
from fusefs.oci.digest import Digest
from fusefs.sources.registry import known
from fusefs.sources.registry.known import CATALOG, TAGS, Key, KnownRegistry
from tests.conftest import TakeWarnings
from tests.support.conformance import SETTINGS

Told = tuple[Mapping[str, None] | Digest | bool, bool]
REPOSITORIES = ["a", "b", "c", "d", "e"]
LISTED = {f"{name}@1".encode() for name in REPOSITORIES}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Key]:
    """Return the questions that the registry was asked, which has five repositories with a tag each."""
    questions: list[Key] = []

    def answer(key: Key) -> Told:
        questions.append(key)
        return tell(key)

    answers_with(monkeypatch, answer)
    return questions


def answers_with(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Key], Told]) -> None:
    monkeypatch.setattr(KnownRegistry, "_asked", lambda _, key: answer(key))


def tell(key: Key) -> Told:
    return dict.fromkeys(REPOSITORIES if key == CATALOG else ["1"]), True


def provider_of() -> RegistryProvider:
    return RegistryProvider("docker://localhost:1", SETTINGS, None, Saves(1))


def listing_of(provider: RegistryProvider) -> Question:
    question = provider.question((), None)
    assert question is not None
    return question


def test_what_has_been_answered_does_not_count_as_silence(asked: list[Key]) -> None:
    provider = provider_of()
    question = listing_of(provider)
    question.ask()
    question.keep(30)
    assert (provider.names.error(()), {*provider.names.listed(())}) == ("", LISTED)
    assert len(asked) == 1 + len(REPOSITORIES)


def test_what_is_known_and_old_gets_no_error_while_it_is_asked_for() -> None:
    now = [0.0]
    asked = KnownRegistry("localhost:1", "", SETTINGS, lambda: now[0])
    asked._asked = tell  # type: ignore[method-assign]
    asked.ask(CATALOG)
    now[0] = 100
    assert not asked.is_fresh(CATALOG)
    asked.keep(CATALOG, 30)
    answer = asked.answer(CATALOG)
    assert answer is not None
    assert (answer.failure, asked.is_fresh(CATALOG), asked.is_answered(CATALOG)) == ("", True, False)
    asked.keep(("a", TAGS), 30)
    unknown = asked.answer(("a", TAGS))
    assert unknown is not None
    assert "does not answer" in unknown.failure
    asked.ask(("a", TAGS))
    assert asked.is_answered(("a", TAGS))


def test_a_listing_goes_on_after_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = provider_of()
    answers_with(monkeypatch, tell)
    provider.begin()

    def answer_late(key: Key) -> Told:
        question.keep(30)
        return tell(key)

    answers_with(monkeypatch, answer_late)
    provider._known._clock = lambda: 1e9  # everything is old
    question = listing_of(provider)
    question.ask()
    assert (provider.names.error(()), {*provider.names.listed(())}) == ("", LISTED)


def test_a_listing_asks_for_nothing_that_somebody_else_has_asked_for(asked: list[Key]) -> None:
    provider = provider_of()
    provider.begin()
    first, second = listing_of(provider), listing_of(provider)
    first.ask()
    del asked[:]
    second.ask()
    assert asked == []


def test_all_who_list_a_directory_wait_for_the_same_listing(asked: list[Key]) -> None:
    provider = provider_of()
    first = listing_of(provider)
    provider.begin()
    assert listing_of(provider).key == first.key
    assert asked == [CATALOG]


def test_a_listing_ends_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, asked: list[Key]) -> None:
    monkeypatch.setattr(tag_lists, "_MAX_SECONDS", 0)
    provider = provider_of()
    listing_of(provider).ask()
    assert asked == [CATALOG]
    assert "take more than 0 s; 5 are missing" in provider.names.error(())


def test_a_directory_with_too_many_names_says_so_and_lists_what_fits(
    monkeypatch: pytest.MonkeyPatch, asked: list[Key], take_warnings: TakeWarnings
) -> None:
    monkeypatch.setattr(known, "_MAX_LISTED", 30)
    monkeypatch.setattr(known, "_MAX_KEPT", 45)
    tags = dict.fromkeys(map(str, range(10)))

    def answer(key: Key) -> Told:
        asked.append(key)
        return (tell(key)[0] if key == CATALOG else tags), True

    answers_with(monkeypatch, answer)
    provider = provider_of()
    provider._known.ask(("z", TAGS))
    listed = set[bytes]()
    for now in (0.0, 100.0, 200.0):
        provider._known._clock = lambda now=now: now  # type: ignore[misc]
        del asked[:]
        listing_of(provider).ask()
        assert len(provider.names.listed(())) == 30
        assert listed in (set(), {*provider.names.listed(())})
        listed = {*provider.names.listed(())}
        assert "more than 30 names" in provider.names.error(())
        assert len(asked) >= 1 + 3 + 1
        assert provider.question((), None) is None  # it is not asked again at once
    assert len(take_warnings()) == 1
