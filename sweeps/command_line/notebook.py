"""The live table in a notebook's cell, updated in place and kept in the saved notebook."""

import io
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.jupyter import JUPYTER_HTML_FORMAT
from rich.live import Live

WIDTH = 120


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
