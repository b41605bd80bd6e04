"""Errors that a command reports to its user."""


class UserError(Exception):
    """One line: what is wrong, where, and what would be right. Commands print it and exit with status 2."""


class ConfigError(UserError):
    """A mistake in a config: the file, the dotted path, what is wrong, and what would be right."""


class OwnCodeError(UserError):
    """One line that says where a user's code raised what; commands print the cause's traceback after it."""


class DataError(UserError):
    """Images that can't be loaded: the file, what is wrong, and the alternatives."""


def first_line(error: BaseException, length: int = 200) -> str:
    """Of what an error of others says, so much at most."""
    return next(iter(str(error).strip().splitlines()), "")[:length]
