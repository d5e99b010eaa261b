"""Rich's console, whose own cursor moves and colours pass, while the texts in it are made safe."""

from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from sweeps.command_line.safe_output import make_safe, unguard


class SafeConsole(Console):
    """A terminal only if its stream is one, whatever FORCE_COLOR says: a log is no terminal."""

    def __init__(self, stream: TextIO, **options: Any) -> None:
        super().__init__(**{"file": unguard(stream), "force_terminal": stream.isatty(), **options})

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments that rich makes of a renderable."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else make_safe(text), style, control)
