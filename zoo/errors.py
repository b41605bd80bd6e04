"""What a command tells its user."""


class UserError(Exception):
    """One line that says what is wrong, where, and what would be right; commands print it and exit with 2."""
