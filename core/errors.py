"""The one base of errors that a person reads."""

from __future__ import annotations


class UserError(ValueError):
    """What cannot be done, for a reason a person can mend: the message is one plain sentence.

    Commands and pages show the message as it is; any other exception is a mistake of the program.
    """
