"""Rich's console, whose own cursor moves and colours pass, while the texts in it are made safe."""

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from sweeps.command_line.safe_output import make_safe, unguard


class SafeConsole(Console):
    """A terminal only if its stream is one, whatever FORCE_COLOR says: a log is no terminal."""

    def __init__(self, stream: TextIO, **options: Any) -> None:
        super().__init__(**{"file": unguard(stream), "force_terminal": stream.isatty(), **options})

    def on_broken_pipe(self) -> None:
        """Shows nothing any more: that nobody reads is no reason to end the work that is told."""
        self.quiet = True
        with suppress(OSError):  # a stream without a number
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments that rich makes of a renderable."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else make_safe(text), style, control)
