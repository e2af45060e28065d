"""Challenges of registries."""

import pytest

from fusefs.sources.registry.authorization import Challenge, challenges


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ('Basic realm="Registry Realm"', [Challenge("basic", "Registry Realm")]),
        ("basic", [Challenge("basic")]),
        (
            'Bearer realm="https://auth.example/token",service="example",scope="repository:a/b:pull,push"',
            [Challenge("bearer", "https://auth.example/token", "example", "repository:a/b:pull,push")],
        ),
        (
            'BEARER realm = "https://a/t?x=\\"y\\"" , service=plain',
            [Challenge("bearer", 'https://a/t?x="y"', "plain")],
        ),
        ('Basic realm="a", Bearer realm="b"', [Challenge("basic", "a"), Challenge("bearer", "b")]),
        ('Negotiate, Bearer realm="b"', [Challenge("negotiate"), Challenge("bearer", "b")]),
        ("", []),
        ('="', []),
        ("Negotiate a_b-c=, Bearer realm=b", [Challenge("negotiate"), Challenge("bearer", "b")]),
    ],
)
def test_each_challenge_is_found(header: str, found: list[Challenge]) -> None:
    assert list(challenges([header])) == found


def test_a_long_header_takes_no_long_time() -> None:
    assert len(list(challenges(['a="\\' * 20_000]))) <= 1
