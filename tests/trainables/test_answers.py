"""What answers rows: a pack, or a model as solo trials have it."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from trainables import predict
from trainables.config import TrainingSettings
from trainables.data.rows import Scoring
from trainables.models import delta_kernels
from trainables.models.model_facts import read_model_facts

FLA = {"fla-core": "0.6.0", "triton": "3.6.0"}


@pytest.mark.parametrize(
    ("is_hybrid", "compute_dtype", "installed", "capability", "expected"),
    [
        (False, "bfloat16", {}, (9, 0), "pack"),
        (False, "bfloat16", FLA, (7, 5), "solo"),
        (True, "bfloat16", {}, (9, 0), "solo"),
        (True, "bfloat16", FLA, (9, 0), "pack"),
        (True, "float32", {}, (9, 0), "pack"),
    ],
)
def test_a_gpu_without_what_packs_need_answers_as_solo_trials_do(
    is_hybrid: bool,
    compute_dtype: Any,
    installed: dict[str, str],
    capability: tuple[int, int],
    expected: str,
    settings: TrainingSettings,
    model_dir: str,
    hybrid_dir: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(delta_kernels, "_find_version", lambda name: installed.get(name, ""))
    monkeypatch.setattr(predict, "_answer_packed", lambda *_: ["pack"])
    monkeypatch.setattr(predict, "_answer_solo", lambda *_: ["solo"])
    settings = replace(settings, compute_dtype=compute_dtype)
    facts = read_model_facts(hybrid_dir if is_hybrid else model_dir)
    found = predict.answer_rows([], settings, Scoring(), facts, None, is_packed=True)
    assert list(found) == [expected]
