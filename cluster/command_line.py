"""How a command of this folder ends over a mistake of its user: two lines, and exit code 2."""

import argparse
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Reads a command line, and ends on a mistake as every command does."""

    def error(self, message: str) -> NoReturn:
        abort(message, f"{self.prog} --help")


def abort(error: str, fix: str) -> NoReturn:
    """Ends the process over a mistake of the user."""
    print(f"error: {error}\nfix: {fix}", file=sys.stderr)
    sys.exit(2)
