"""The templates of the model card and of its script."""

import functools
from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


@functools.cache
def load_template(
    name: str, finalize: Callable[[Any], Any] | None = None, **filters: Callable[..., Any]
) -> Template:
    """A template of this folder; finalize has every value that it shows."""
    environment = Environment(
        loader=PackageLoader("sweeps.publish", package_path="."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=finalize,
    )
    environment.filters |= filters
    return environment.get_template(name)
