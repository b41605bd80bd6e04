"""How every command of the zoo ends: with a status, and one line where something is wrong."""

import argparse
import sys
from collections.abc import Callable

from zoo.errors import UserError

WRONG, INTERRUPTED = 2, 130


def run_command(main: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Runs a command and returns its exit status; what its user can mend becomes one line."""
    try:
        return main(arguments)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return WRONG
    except ModuleNotFoundError as error:
        print(f"error: the package {error.name} is not installed; pip install '.[zoo]'", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
