"""Output that data cannot steer: a label, a column or a server's reply may hold terminal escapes.

`guard_output` makes all that a command prints safe, whoever prints it, and hides secrets in what
goes to standard error: warnings and tracebacks of any library. What draws with escapes of
its own writes to `unguard(stream)`, and sees to its texts.
"""

import io
import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast

from sweeps.records.redact import hide_secrets

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""All controls but newline and tab, separators of lines, and what turns the writing direction."""
_PROGRESS_BAR = re.compile(r"\r(?!\n)|\n*(\x1b\[A)*\Z")
"""What tqdm begins a line of standard error with, and how it goes between several bars."""


def make_safe(text: str) -> str:
    """Text with blanks where a terminal would obey instead of showing."""
    return _UNSAFE.sub(" ", text)


class SafeStream:
    """A text stream that writes what is safe to a terminal, and is otherwise that of a process.

    Standard error has progress bars, and no secrets. Standard output may be data, which stays.
    """

    def __init__(self, stream: TextIO, *, is_error: bool) -> None:
        self.unguarded = stream
        self._is_error = is_error

    def write(self, text: str) -> int:
        """Writes the text made safe."""
        moves = _PROGRESS_BAR.match(text) if self._is_error else None
        length = moves.end() if moves else 0
        shown = hide_secrets(text[length:]) if self._is_error else text
        self.unguarded.write(text[:length] + make_safe(shown))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes each line made safe."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


def guard_output() -> None:
    """From now on, standard output and error of this process are safe.

    Letters that the output cannot show are replaced.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if not isinstance(sys.stdout, SafeStream):
        sys.stdout = cast(TextIO, SafeStream(sys.stdout, is_error=False))
    if not isinstance(sys.stderr, SafeStream):
        sys.stderr = cast(TextIO, SafeStream(sys.stderr, is_error=True))


def unguard(stream: TextIO) -> TextIO:
    """The stream itself, for what draws with escapes of its own."""
    return stream.unguarded if isinstance(stream, SafeStream) else stream
