"""Why a connection to an engine or a registry failed, in a few words."""

import http.client
import json

from fusefs.sources.http import RefusedAnswer
from fusefs.text import printable

_MAX_REASON = 300
"""Maximum length of a reason in characters: it may quote the answer."""
_OF_PARSERS = (json.JSONDecodeError, http.client.IncompleteRead, http.client.BadStatusLine, RefusedAnswer)
"""Their causes are details."""
_KNOWN = (
    (json.JSONDecodeError, "its answer is not JSON"),
    (http.client.IncompleteRead, "its answer is cut short or garbled"),
    (http.client.UnknownProtocol, "its answer is not HTTP/1.1"),
)


def timed_out(error: BaseException) -> bool:
    """Return whether our own timeout ended a connection; a timeout of the system has an errno."""
    return _is_our_timeout(cause_of(error))


def _is_our_timeout(cause: BaseException) -> bool:
    return isinstance(cause, TimeoutError) and cause.errno is None


def is_not_http(cause: BaseException) -> bool:
    """Return whether something else than HTTP came; the end of the connection is no answer."""
    return isinstance(cause, http.client.BadStatusLine) and not isinstance(cause, ConnectionError)


def reason(error: BaseException) -> str:
    """Return in a few words why a connection failed."""
    cause = cause_of(error)
    for kind, text in _KNOWN:
        if isinstance(cause, kind):
            return text
    if is_not_http(cause):
        return "its answer is not HTTP"
    if _is_our_timeout(cause):  # that of a handshake quotes a line of C
        return "timed out"
    if isinstance(cause, OSError) and cause.strerror:
        return printable(cause.strerror)
    text = str(cause)
    return printable(text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}…") or type(cause).__name__


def cause_of(error: BaseException) -> BaseException:
    """Return the innermost exception with a reason: an error of the system or our own timeout, if there is one."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and (error.errno is not None or isinstance(error, TimeoutError)):
            break
        if isinstance(error, _OF_PARSERS):
            break
        inner = [arg for arg in (*error.args, getattr(error, "reason", None)) if isinstance(arg, BaseException)]
        deeper = inner[-1] if inner else error.__cause__ or error.__context__
        if deeper is None:
            break
        error = deeper
    return error
