"""The one exception for a user's mistake, and the nearest-name hint that its messages carry."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in an experiment, a flag, a file or a folder: the message says what, where and what to do.

    The command line prints it without a traceback. A bug of ours is never a UserError.
    """


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """ "; did you mean 'x'?" for the closest of `names`, or an empty string where none is close."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
