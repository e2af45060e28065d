"""Why a connection failed, in a few words."""

import http.client

from fusefs.sources.reasons import reason


def test_a_reason_that_quotes_an_answer_is_cut() -> None:
    assert reason(http.client.BadStatusLine("x" * 10_000)) == "x" * 300 + "…"
    assert reason(http.client.BadStatusLine("x" * 300)) == "x" * 300
