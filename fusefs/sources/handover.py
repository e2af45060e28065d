"""Which fork continues the work of this process: its child takes over the connections.

After any other fork both processes go on, and two must not talk on one connection.
"""


class _NextChild:
    continues = False
    """Whether it goes on in place of this process."""


_next_child = _NextChild()


def hand_over() -> None:
    """Take note that the next child goes on in place of this process, which makes no more requests."""
    _next_child.continues = True


def takes_over() -> bool:
    """Return, in a child that was just forked, whether it goes on in place of its parent.  Its own children do not."""
    continues, _next_child.continues = _next_child.continues, False
    return continues
