"""Why a connection failed, in a few words."""

import http.client

from fusefs.sources.reasons import reason


def test_a_reason_that_quotes_an_answer_is_cut() -> None:
    assert reason(http.client.HTTPException("x" * 10_000)) == "x" * 300 + "…"
    assert reason(http.client.HTTPException("x" * 300)) == "x" * 300


def test_what_is_not_http_is_not_quoted_and_the_end_of_a_connection_is_no_answer() -> None:
    assert reason(http.client.BadStatusLine("SSH-2.0")) == "its answer is not HTTP"
    assert reason(http.client.RemoteDisconnected("Remote end closed")) == "Remote end closed"
