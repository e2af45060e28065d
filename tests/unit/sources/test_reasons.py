"""Why a connection failed, in a few words."""

import errno
import http.client

from fusefs.sources.reasons import reason


def test_a_reason_that_quotes_an_answer_is_cut() -> None:
    assert reason(http.client.HTTPException("x" * 10_000)) == "x" * 300 + "…"
    assert reason(http.client.HTTPException("x" * 300)) == "x" * 300


def test_our_own_timeout_has_one_text_and_that_of_the_system_its_own() -> None:
    assert reason(TimeoutError("_ssl.c:975: The handshake operation timed out")) == "timed out"
    assert reason(TimeoutError(errno.ETIMEDOUT, "Connection timed out")) == "Connection timed out"


def test_what_is_not_http_is_not_quoted_and_the_end_of_a_connection_is_no_answer() -> None:
    assert reason(http.client.BadStatusLine("SSH-2.0")) == "its answer is not HTTP"
    assert reason(http.client.UnknownProtocol("HTTP/2")) == "its answer is not HTTP/1.1"
    assert reason(http.client.RemoteDisconnected("Remote end closed")) == "Remote end closed"
