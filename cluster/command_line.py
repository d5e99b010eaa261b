"""How a command of this folder ends over a mistake of its user: two lines, and exit code 2."""

import argparse
import json
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Reads a command line, and ends on a mistake as every command does."""

    def error(self, message: str) -> NoReturn:
        abort(message, f"{self.prog} --help")


def abort(error: str, fix: str) -> NoReturn:
    """Ends the process over a mistake of the user; with --json, programs get one JSON object."""
    if "--json" in sys.argv[1:]:
        print(json.dumps({"error": error, "fix": fix}))
    print(f"error: {error}\nfix: {fix}", file=sys.stderr)
    sys.exit(2)
