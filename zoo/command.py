"""How commands end: with an exit status, and one line if something is wrong."""

import argparse
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from zoo import owncode, signals
from zoo.errors import OwnCodeError, UserError

WRONG = 2
LINE = 600  # characters of a message at most
LINKS = "Symlink loop from"  # what `Path.resolve` raises says, before Python 3.13


def run_command(main: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Runs a command and returns its exit status; errors that the user can fix are printed as one line."""
    try:
        _check_text(arguments)
        return main(arguments)
    except UserError as error:
        status = _wrong(str(error))
        if isinstance(error, OwnCodeError) and error.__cause__:
            _print_traceback(error.__cause__)
        return status
    except ModuleNotFoundError as error:
        return _wrong(f"the package {error.name} is not installed; pip install '.[zoo]'")
    except (MemoryError, RecursionError) as error:
        return _wrong(f"{'out of memory' if isinstance(error, MemoryError) else 'nested too deeply'}: {error}")
    except OSError as error:  # a full disk, a read-only file system, missing permissions
        return _wrong(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except RuntimeError as error:
        if not str(error).startswith(LINKS):
            raise
        return _wrong(f"{str(error).removeprefix(LINKS).strip()}: this link leads to itself; remove it")
    except signals.Stop:
        print("stopped", file=sys.stderr)
        return signals.STOPPED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return signals.INTERRUPTED


def _print_traceback(cause: BaseException) -> None:
    """From where a user's own code begins."""
    place = cause.__traceback__
    while place and place.tb_frame.f_code.co_filename == owncode.__file__:
        place = place.tb_next
    traceback.print_exception(type(cause), cause, place)


def _wrong(message: str) -> int:
    line = " ".join(message.split())
    if len(line) > LINE:
        line = f"{line[: LINE // 2]} ... {line[-LINE // 2 :]}"
    print(f"error: {line.encode(errors='backslashreplace').decode()}", file=sys.stderr)
    return WRONG


def _check_text(arguments: argparse.Namespace) -> None:
    """
    Raises:
        UserError: for an argument with a NUL or bytes that aren't text.
    """
    for value in vars(arguments).values():
        for word in value if isinstance(value, list) else [value]:
            if isinstance(word, Path | str) and ("\0" in str(word) or not _is_text(str(word))):
                raise UserError(f"{str(word)[:80]!r}: an argument can't contain a NUL, or bytes that aren't text")


def _is_text(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def seconds(text: str) -> float:
    """An option's time such as 90s, 9m or 2.5h."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"expected a time such as 90s, 9m or 2.5h; found {text!r}")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def count(text: str) -> int:
    """An option's number of runs, seeds or epochs."""
    if not (text.isascii() and text.isdecimal() and len(text) < 9) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number, 1 or more; found {text!r}")
    return int(text)
