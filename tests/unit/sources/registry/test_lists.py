"""Lists of a registry, page by page, and the links from each page to the next one."""

import json

import pytest

from fusefs.sources.registry.links import next_query
from fusefs.sources.registry.lists import NameList, list_tags
from tests.support.answers import Answer, Got, answers
from tests.unit.sources.registry.clients import client

URL = "https://registry.example.com/v2/team/app/tags/list?n=1"


@pytest.mark.parametrize(
    ("link", "query"),
    [
        ('</v2/team/app/tags/list?last=a>; rel="next"', "last=a"),
        ("<?last=a>;rel=next", "last=a"),
        ('<https://registry.example.com/v2/team/app/tags/list?last=a>; rel="next"', "last=a"),
        ('<?last=a>; Rel="Next"', "last=a"),
        ('<?last=a>; rel="last next"', "last=a"),
        ('<?last=a>; rel = "NEXT\tlast" ; type="x"', "last=a"),
        ('<?last=0>; rel="prev", <?last=a>; rel="next"', "last=a"),
        (r'<?last=a>; title="a <b>; \"rel=prev, x"; rel=next', "last=a"),
        ("<?last=a>; rel=prev; rel=next", ""),  # the first counts
        ('<?last=a>; rel="nextpage"', ""),
        ('<?last=a>; rel="next-page"', ""),
        ('<?last=a>; title="; rel=next"', ""),
        ("<?last=a>", ""),
        ("", ""),
        ('<https://other.example.com/v2/team/app/tags/list?last=a>; rel="next"', None),
        ('<http://registry.example.com/v2/team/app/tags/list?last=a>; rel="next"', None),
        ('</elsewhere/v2/team/app/tags/list?last=a>; rel="next"', "last=a"),  # as before a proxy
        ('<http://[>; rel="next"', None),
    ],
)
def test_the_next_page_is_at_the_same_place(link: str, query: str | None) -> None:
    assert next_query([link], URL) == query
    assert next_query(["</x>; rel=first", link], URL) == query


@pytest.mark.parametrize(
    ("link", "names", "flaw"),
    [
        ('<?last=a>; Rel="Next"', ("a", "b"), ""),
        ('<http://127.0.0.1:1/v2/team/app/tags/list?last=a>; rel="next"', ("a", "b"), ""),  # as before a proxy
        ('<https://registry.internal:443/?last=a>; rel="next"', ("a", "b"), ""),
        ('<http://[>; rel="next"', ("a",), "the link to its next page is malformed"),
    ],
)
def test_a_list_of_tags_goes_on_whatever_host_its_links_name(link: str, names: tuple[str, ...], flaw: str) -> None:
    def answer(got: Got) -> Answer:
        first = "last=" not in got.path
        return Answer(200, json.dumps({"tags": ["a" if first else "b"]}).encode(), {"Link": link} if first else {})

    with answers(answer) as server:
        assert list_tags(client(server.host)) == NameList(names, flaw)
