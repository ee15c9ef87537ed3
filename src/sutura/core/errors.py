"""The one exception that is meant for the person at the keyboard."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input, told in one sentence: the value found, the rule, the next step.

    The command line prints it without a traceback and exits with 2.
    """
