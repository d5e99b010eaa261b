"""What a GPU needs of fla (github.com/fla-org/flash-linear-attention), whose kernels compute Gated
DeltaNet. Imports neither torch nor fla."""

import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

INSTALL = "pip install '.[hybrid]'"
"""What installs them."""
_LEAST_FLA = (0, 6)
"""Whose functions packs call; older ones lack some of their arguments."""
_HOPPER = 9
"""Major compute capability of an H100 or H200."""
_BAD_TRITON = ((3, 4, 0), (3, 7, 1))
"""From the first and before the second Hopper gets wrong gradients, and fla refuses (its issue
640)."""
_HOPPER_CONFIGS = Path(__file__).parent / "fla_hopper"
"""Block sizes of fla's kernels, in its own format, as its tuning chose them on an H200."""


class Fault(NamedTuple):
    """What keeps a GPU from computing by fla's kernels, and what mends it."""

    found: str
    remedy: str


def find_fault(compute_capability: float) -> Fault | None:
    """What is wrong with the kernels installed here for such a GPU; None if nothing is."""
    fla, triton = (_find_version(name) for name in ("fla-core", "triton"))
    first, fixed = _BAD_TRITON
    if fla and int(compute_capability) == _HOPPER and first <= _parse_version(triton) < fixed:
        found = f"Triton {triton} gives wrong gradients of Gated DeltaNet on Hopper"
        return Fault(
            found, f"pip install 'triton>={'.'.join(map(str, fixed))}'; torch works with it"
        )
    if not (fla and triton):
        return Fault("fla's kernels are not installed", INSTALL)
    if _parse_version(fla) < _LEAST_FLA:
        return Fault(f"fla-core {fla} is older than {'.'.join(map(str, _LEAST_FLA))}", INSTALL)
    return None


def prepare_fla(compute_capability: tuple[int, int] | None) -> None:
    """Spare fla its own tuning where its outcome is known; call it before anything imports fla.

    It compiles each kernel many times: two minutes, once for each shape of heads and machine.

    Args:
        compute_capability: of the GPU; None without one. Then nothing can import fla, since
            transformers takes its kernels wherever they are installed, and they need a GPU.
    """
    if compute_capability is None:
        sys.modules.setdefault("fla", None)  # type: ignore[arg-type]
    elif compute_capability[0] == _HOPPER:
        os.environ.setdefault("FLA_CACHE_MODE", "full")
        os.environ.setdefault("FLA_CONFIG_DIR", str(_HOPPER_CONFIGS))


def _find_version(distribution: str) -> str:
    """Its version; "" if it is not there."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _parse_version(version: str) -> tuple[int, ...]:
    """The first three of a version."""
    return tuple(map(int, re.findall(r"\d+", version)[:3]))
