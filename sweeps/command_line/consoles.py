"""What rich draws on: a console whose texts are made safe, and a notebook's cell."""

import io
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.jupyter import JUPYTER_HTML_FORMAT
from rich.live import Live
from rich.segment import Segment

from sweeps.command_line.safe_output import make_safe, unguard

WIDTH = 120


class SafeConsole(Console):
    """Rich's console, whose own cursor moves and colours pass. It is a terminal only if its stream
    is one, whatever FORCE_COLOR says: a log is no terminal."""

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


class NotebookLive(Live):
    """rich's Live shows notebooks an output widget: it needs ipywidgets, and a saved notebook has
    nothing of it. This updates a display of the cell's own.

    Args:
        options: those of Live, but the console.
    """

    def __init__(self, **options: Any) -> None:
        nowhere = Console(file=io.StringIO(), force_jupyter=False)
        super().__init__(console=nowhere, **options)
        self._handle: Any = None
        self._content: dict[str, str] = {}

    def refresh(self) -> None:
        """Shows what is to be seen now, if that is new."""
        from IPython import display  # a notebook has it

        show: Callable[..., Any] = display.display

        page = Console(record=True, file=io.StringIO(), force_jupyter=False, width=WIDTH)
        page.print(self.get_renderable())
        html = page.export_html(inline_styles=True, code_format=JUPYTER_HTML_FORMAT, clear=False)
        content = {"text/html": html, "text/plain": page.export_text()}
        if content == self._content:
            return
        self._content = content
        if self._handle is None:
            self._handle = show(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)
