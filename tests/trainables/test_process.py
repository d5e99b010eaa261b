"""Which GPU and how many cores a process that trains uses."""

import os
import sys

import pytest

from trainables.process import make_cpu_environment, see_one_gpu


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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a process fewer cores")
def test_pack_on_cpus_has_a_thread_for_each_core_that_it_may_use() -> None:
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert make_cpu_environment()["OMP_NUM_THREADS"] == "1"
    finally:
        os.sched_setaffinity(0, cores)
    assert make_cpu_environment()["OMP_NUM_THREADS"] == str(len(cores))
