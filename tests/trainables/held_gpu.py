"""A GPU whose memory another process holds."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_HOLDER = """
import sys, torch
free, _ = torch.cuda.mem_get_info()
held = torch.empty(free - int(float(sys.argv[1]) * 2**30), dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def hold_gpu(gpu: str, left_gib: float) -> Iterator[None]:
    """Leaves so much of the memory of a GPU, which is named as CUDA_VISIBLE_DEVICES names it."""
    env = os.environ | {"CUDA_VISIBLE_DEVICES": gpu}
    command = [sys.executable, "-c", _HOLDER, str(left_gib)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            holder.kill()
