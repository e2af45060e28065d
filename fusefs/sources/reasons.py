"""Why a connection to an engine or a registry failed, in a few words."""

import http.client
import json

from fusefs.sources.http import RefusedAnswer
from fusefs.text import printable

_MAX_REASON = 300
"""Maximum length of a reason in characters: it may quote the answer."""
_OF_PARSERS = (json.JSONDecodeError, http.client.IncompleteRead, http.client.BadStatusLine, RefusedAnswer)
"""Their causes are details."""


def timed_out(error: BaseException) -> bool:
    """Return whether our own timeout ended a connection; a timeout of the system has an errno."""
    cause = cause_of(error)
    return isinstance(cause, TimeoutError) and cause.errno is None


def is_not_http(cause: BaseException) -> bool:
    """Return whether something else than HTTP came; the end of the connection is no answer."""
    return isinstance(cause, http.client.BadStatusLine) and not isinstance(cause, ConnectionError)


def reason(error: BaseException) -> str:
    """Return in a few words why a connection failed."""
    cause = cause_of(error)
    if isinstance(cause, json.JSONDecodeError):
        return "its answer is not JSON"
    if isinstance(cause, http.client.IncompleteRead):
        return "its answer is cut short or garbled"
    if is_not_http(cause):
        return "its answer is not HTTP"
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
