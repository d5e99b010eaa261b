"""Flags by theme: --help shows a field under the group that its type names.

tyro groups flags by nested dataclasses, which ours are for other reasons. So it reads them laid out
anew here, and the values go back to where they belong.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, get_args

import tyro
from tyro.constructors import (
    MISSING_NONPROP,
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from trainables.config import FlagGroup

Flag = tuple[StructFieldSpec, FlagGroup | None]
"""A field that is a flag, and the group that its type names, or else its dataclass's field does."""
_Build = Callable[[Mapping[str, Any]], Any]
_NO_DEFAULT = tyro.conf.arg(help_behavior_hint="(default: none)")
_UNPREFIXED: Any = tyro.conf.OmitArgPrefixes


def group_flags(cls: type, default: object = None) -> tuple[type, ConstructorRegistry]:
    """What tyro reads in place of a dataclass, and the rules by which it does.

    Flags that matter, and those without a group, stand first; the groups follow in their order.

    Args:
        default: an instance of cls with the values of flags that are left out.
    """
    build, flags = flatten(cls, default)
    specs: dict[type, StructConstructorSpec] = {}
    boxes = []
    for group in FlagGroup:
        members = tuple(field for field, named in flags if named is group)
        if members and group is not FlagGroup.MAIN:
            box = type(group.name, (), {})
            specs[box] = StructConstructorSpec(dict, members)
            boxes.append(StructFieldSpec(group.value, _UNPREFIXED[box], MISSING_NONPROP, ""))
    first = [field for field, named in flags if named in (FlagGroup.MAIN, None)]

    def rebuild(**values: Any) -> object:
        inner = [values.pop(box.name) for box in boxes]
        return build({name: v for part in (values, *inner) for name, v in part.items()})

    root = type(cls.__name__, (), {})
    specs[root] = StructConstructorSpec(rebuild, (*first, *boxes))
    registry = ConstructorRegistry()
    registry.struct_rule(lambda info: specs.get(info.type))
    return root, registry


def flatten(
    cls: type, default: object = None, group: FlagGroup | None = None
) -> tuple[_Build, list[Flag]]:
    """All flags of a dataclass and of those inside it, and what makes it of their values."""
    given = MISSING_NONPROP if default is None else default
    spec = ConstructorRegistry.get_struct_spec(StructTypeInfo.make(cls, given, False))
    assert isinstance(spec, StructConstructorSpec)
    flags: list[Flag] = []
    inner: dict[str, _Build] = {}
    for field in spec.fields:
        bare, *notes = get_args(field.type) if hasattr(field.type, "__metadata__") else [field.type]
        named = next((note for note in notes if isinstance(note, FlagGroup)), group)
        if _UNPREFIXED in notes:
            inner[field.name], more = flatten(bare, field.default, named)
            flags += more
        else:
            shown = replace(field, helptext=_unwrap_help(field.helptext))
            if field.default == ():
                told: Any = Annotated[field.type, _NO_DEFAULT]
                shown = replace(shown, type=told)
            flags.append((shown, named))

    def build(values: Mapping[str, Any]) -> object:
        fields = ((field.name, inner.get(field.name)) for field in spec.fields)
        return spec.instantiate(**{n: make(values) if make else values[n] for n, make in fields})

    return build, flags


def _unwrap_help(
    helptext: str | Callable[[], str | None] | None,
) -> Callable[[], str | None]:
    """A docstring has lines of its own width, and the terminal another."""

    def join() -> str | None:
        text = helptext() if callable(helptext) else helptext
        return text and " ".join(text.split())

    return join
