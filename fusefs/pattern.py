"""Regular expressions that are compiled when they are used: most runs use few, and to compile one takes 0.2 ms."""

import re
from typing import Any, AnyStr, cast


class _Pattern:
    """Stands for a compiled expression, and asks it for everything."""

    def __init__(self, source: str | bytes, flags: int) -> None:
        self._source = source
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(re.compile(self._source, self._flags), name)
        setattr(self, name, attribute)  # a method, found without this function from now on
        return attribute


def pattern(source: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """Return the regular expression *source*, which must be well-formed, with *flags* of the module re."""
    return cast("re.Pattern[AnyStr]", _Pattern(source, flags))
