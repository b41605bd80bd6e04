"""What a command tells its user."""


class UserError(Exception):
    """One line that says what is wrong, where, and what would be right; commands print it and exit with 2."""


class ConfigError(UserError):
    """One line: the file, the dotted path, what is wrong there, and what would be right."""


class DataError(UserError):
    """One line: what is wrong with the data, where, and the ways out."""
