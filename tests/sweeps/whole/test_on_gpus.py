"""Whole sweeps on the GPUs of this machine: some left out, one held by others, packs killed."""

from pathlib import Path
from typing import Any

import pytest

from cluster.gpus import list_local_gpus
from sweeps.records.trial_record import replay
from tests.sweeps import small_sweep
from tests.sweeps.small_sweep import count
from tests.trainables.held_gpu import hold_gpu

GPUS = list_local_gpus()
FLAGS = (*small_sweep.FLAGS, "--num-trials", str(4 * len(GPUS)))
LONGER = (*FLAGS, "--max-steps", "90")
"""Trials that still train when the last GPU's pack is killed."""
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPUS, reason="needs NVIDIA GPUs: make test-gpu"),
]


def packs_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in small_sweep.events_of(folder) if event["kind"] == kind]


def test_packs_start_on_the_visible_gpus_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", GPUS[-1].uuid)
    code, output = small_sweep.run(tmp_path, "visible", *FLAGS)
    assert code == 0, output
    (pack,) = packs_of(tmp_path / "visible", "pack_started")
    assert pack["gpu"] == GPUS[-1].uuid


def test_no_more_gpus_are_used_than_asked_for(tmp_path: Path) -> None:
    num_asked = max(1, len(GPUS) - 1)
    code, output = small_sweep.run(tmp_path, "asked", *FLAGS, "--gpus", str(num_asked))
    assert code == 0, output
    used = [pack["gpu"] for pack in packs_of(tmp_path / "asked", "pack_started")]
    assert 1 <= len(used) == len(set(used)) <= num_asked  # a sweep begins with the first


@pytest.mark.parametrize("left_gib", [0.1, 1.5])
def test_a_gpu_that_another_process_fills_is_told_and_the_others_train(
    tmp_path: Path, left_gib: float
) -> None:
    with hold_gpu(GPUS[0].uuid, left_gib):
        code, output = small_sweep.run(tmp_path, "held", *FLAGS)
    if len(GPUS) == 1 and left_gib < 1:
        *_, error, fix = output.strip().splitlines()
        assert (code, error.split(": ")[0], fix.split(": ")[0]) == (2, "error", "fix"), output
        assert "out of memory" in error and "nvidia-smi lists it" in fix
        assert "Traceback" not in output
        code, output = small_sweep.run(tmp_path, "held", *FLAGS)  # no trial had begun
    assert code == 0, output
    small_sweep.check_whole(tmp_path / "held", "held", 4 * len(GPUS))


def test_a_pack_killed_on_each_gpu_in_turn_moves_no_curve(tmp_path: Path) -> None:
    code, output = small_sweep.run(tmp_path, "calm", *LONGER)
    assert code == 0, output
    folder = tmp_path / "killed"
    process = small_sweep.start(tmp_path, "killed", *LONGER)
    small_sweep.wait_for(folder, lambda events: count(events, "pack_started") == len(GPUS), process)
    for pack in small_sweep.pack_processes(process.pid):
        known = count(small_sweep.events_of(folder), "report")
        small_sweep.wait_for(folder, lambda events, n=known: count(events, "report") > n, process)
        pack.kill()
    output, _ = process.communicate(timeout=small_sweep.LIMIT_S)
    assert process.returncode == 0, output
    lost = packs_of(folder, "pack_lost")
    assert len({pack["gpu"] for pack in lost}) == len(GPUS)
    found = small_sweep.check_whole(folder, "killed", 4 * len(GPUS))
    calm = replay(small_sweep.events_of(tmp_path / "calm"))
    small_sweep.check_same_curves(found, calm, [record.trial_id for record in found])
