"""The templates of the report, of the model card and of its script."""

import functools
from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


@functools.cache
def load_template(
    name: str,
    *,
    is_html: bool = False,
    finalize: Callable[[Any], Any] | None = None,
    **filters: Callable[..., Any],
) -> Template:
    """A template of this folder.

    Args:
        is_html: whether every value that it shows is escaped as HTML.
        finalize: has every value that it shows.
        filters: by their names in it.
    """
    environment = Environment(
        loader=PackageLoader("sweeps.publish", package_path="."),
        autoescape=is_html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=finalize,
    )
    environment.filters |= filters
    return environment.get_template(name)
