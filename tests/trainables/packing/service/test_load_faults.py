"""A pack that other processes leave too little of its GPU says so, and what to do."""

from functools import partial
from typing import Any

import pytest
import torch

from tests.trainables.packing.small_hosts import capacity_of, running
from trainables.config import TrainingSettings
from trainables.errors import SweepAborted
from trainables.models import memory
from trainables.models.model_facts import read_model_facts
from trainables.packing.service import loading
from trainables.packing.service.events import LoadFault
from trainables.packing.sizing.choose import choose_capacity


def fault_of(settings: TrainingSettings, ended: type[Exception], **options: Any) -> LoadFault:
    """That of a pack which cannot start."""
    with (
        pytest.raises(ended),
        running(settings, capacity_of(2), **options) as host,
        pytest.raises(LoadFault) as fault,
    ):
        host.wait_for_throughput()
    return fault.value


def test_gpu_whose_free_memory_holds_no_trial(
    settings: TrainingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "get_gpu_gib", lambda: 0.06)
    facts = read_model_facts(settings.model)
    fault = fault_of(
        settings, SweepAborted, choose_capacity=partial(choose_capacity, facts, settings, 16)
    )
    _, error, fix = fault.args
    assert error.endswith("the GPU has 0.1 GiB that no other process holds")
    assert fix.startswith("end what else runs on that GPU") and "choose a smaller model" in fix


@pytest.mark.parametrize(
    "full",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDA error: out of memory")],
)
def test_gpu_that_fills_while_the_pack_loads(
    settings: TrainingSettings, monkeypatch: pytest.MonkeyPatch, full: RuntimeError
) -> None:
    def fill(*_: Any, **__: Any) -> None:
        raise full

    monkeypatch.setattr(loading, "load_base", fill)
    assert memory.is_out_of_memory(full)
    _, error, fix = fault_of(settings, type(full)).args
    assert error.startswith("a pack cannot start: ") and "out of memory" in error
    assert "nvidia-smi lists it" in fix
