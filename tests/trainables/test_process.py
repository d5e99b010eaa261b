"""What a process that trains by itself sees of the GPUs that it may use."""

import os

import pytest

from trainables.process import see_one_gpu


@pytest.mark.parametrize(
    ("allowed", "seen"),
    [(None, "0"), ("0,1", "0"), ("3,2", "3"), ("GPU-5d,GPU-2f", "GPU-5d"), ("", ""), ("-1", "-1")],
)
def test_only_the_first_is_seen(
    monkeypatch: pytest.MonkeyPatch, allowed: str | None, seen: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed or "")
    if allowed is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    see_one_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen
