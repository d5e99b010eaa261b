"""Which GPUs a sweep counts on: those that nvidia-smi tells and CUDA_VISIBLE_DEVICES leaves."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.gpus import list_local_gpus, list_visible_gpus
from sweeps.cost.hardware import Hardware

LIKE = [f"GPU-aa{number}, NVIDIA H200, 143771, 9.0" for number in range(4)]
UNLIKE = [
    "GPU-aa1, NVIDIA GeForce GTX 1050 Ti, 4096, 6.1",
    "GPU-ab2, NVIDIA GeForce RTX 4090, 24564, 8.9",
]
Answer = Callable[[list[str]], None]


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Puts an nvidia-smi into PATH that prints lines if it is asked as it should be."""
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)

    def write(lines: list[str]) -> None:
        script = tmp_path / "nvidia-smi"
        asked = "--query-gpu=uuid,name,memory.total,compute_cap --format=csv,noheader,nounits"
        text = "\n".join(lines)
        script.write_text(f'#!/bin/sh\n[ "$*" = "{asked}" ] && cat <<END\n{text}\nEND\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return write


@pytest.mark.parametrize(
    ("gpus", "visible", "order", "gib"),
    [
        (LIKE, None, None, [140.4] * 4),
        (LIKE, "0", None, [140.4]),
        (LIKE, "3, 1", None, [140.4] * 2),
        (LIKE, "7", None, []),
        (LIKE, "", None, []),
        (LIKE, "-1", None, []),
        (UNLIKE, None, None, [4.0, 24.0]),
        (UNLIKE, "0", None, [4.0]),
        (UNLIKE, "1", None, [4.0]),
        (UNLIKE, "1", "PCI_BUS_ID", [24.0]),
        (UNLIKE, "0", "PCI_BUS_ID", [4.0]),
        (UNLIKE, "GPU-ab", None, [24.0]),
        (UNLIKE, "GPU-ab2,GPU-aa1", None, [24.0, 4.0]),
        (UNLIKE, "MIG-c3", None, [4.0, 24.0]),
    ],
)
def test_what_cuda_visible_devices_leaves(
    answer: Answer,
    monkeypatch: pytest.MonkeyPatch,
    gpus: list[str],
    visible: str | None,
    order: str | None,
    gib: list[float],
) -> None:
    answer(gpus)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if order is not None:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    assert [round(gpu.gib, 1) for gpu in list_visible_gpus()] == gib
    assert len(list_local_gpus()) == len(gpus)
    here = Hardware.detect()
    assert here.num_gpus == len(gib)
    assert (here.oldest_gpu is None) == (not gib)
    assert here.gpu_gib == pytest.approx(min(gib, default=None), abs=0.1)


@pytest.mark.parametrize(
    "line",
    ["", "No devices were found", "GPU-c1, NVIDIA GB10, [N/A], 12.1", "GPU-c1, A, 4096, [N/A]"],
)
def test_a_line_without_memory_is_no_gpu(answer: Answer, line: str) -> None:
    answer([line, *UNLIKE])
    assert [gpu.uuid for gpu in list_local_gpus()] == ["GPU-aa1", "GPU-ab2"]
