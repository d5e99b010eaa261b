"""What preflight finds of GPUs and of a cluster to join, before a start."""

import os
import shlex
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from sweeps.checks import preflight
from tests.cluster.heads import run_http2_server
from tests.sweeps.commands import TINY, call, refused
from tests.trainables.hybrid_model import save_hybrid
from trainables.models import delta_kernels

pytestmark = pytest.mark.usefixtures("few_rows", "own_world")


def test_real_run_without_a_gpu_offers_the_tiny_one() -> None:
    message, fix = call("sweeps.run", "samsum").refusal()
    assert "no GPU found" in message
    words = shlex.split(fix.partition(": ")[2].partition(";")[0])
    assert call(*words[2:], "--dry-run").code == 0


def have_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Puts an nvidia-smi into PATH that tells of these GPUs."""
    script = folder / "bin" / "nvidia-smi"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\ncat <<END\n" + "\n".join(lines) + "\nEND\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")


T4 = "GPU-a1, Tesla T4, 15360, 7.5"
L4 = "GPU-a2, NVIDIA L4, 23034, 8.9"
H200 = "GPU-a3, NVIDIA H200, 143771, 9.0"


@pytest.mark.parametrize(
    ("gpus", "flags", "fix"),
    [
        ((T4,), (), "add --engine solo --compute-dtype float32"),
        ((L4, T4), (), "add --engine solo --compute-dtype float32"),
        ((T4,), ("--compute-dtype", "float32"), "add --engine solo"),
        ((T4,), ("--engine", "solo"), "add --compute-dtype float32"),
        ((T4,), ("--engine", "solo", "--compute-dtype", "float32"), None),
        ((L4,), (), None),
    ],
)
def test_gpu_too_old_for_packs_or_bfloat16_is_told(
    gpus: tuple[str, ...],
    flags: tuple[str, ...],
    fix: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have_gpu(tmp_path, monkeypatch, *gpus)
    if fix is None:
        assert call("sweeps.run", "samsum", "--tiny", *flags, "--dry-run").code == 0
        return
    message, told = refused(tmp_path, *flags)
    assert message.startswith("the Tesla T4 has compute capability 7.5; ")
    assert told == f"{fix}, or leave that GPU out with CUDA_VISIBLE_DEVICES"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a2")
    assert call("sweeps.run", "samsum", "--tiny", *flags, "--dry-run").code == 0


def test_more_gpus_than_this_machine_has_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_gpu(tmp_path, monkeypatch, L4, H200)
    message, fix = refused(tmp_path, "--gpus", "5")
    assert message == "--gpus 5 is more than the 2 that this machine has"
    assert fix.startswith("give --gpus 2 at most")
    assert call("sweeps.run", "samsum", "--tiny", "--gpus", "2", "--dry-run").code == 0


@pytest.mark.parametrize(
    ("gpu", "installed", "reason", "fix"),
    [
        (L4, {}, "fla's kernels are not installed", "pip install '.[hybrid]'"),
        (
            L4,
            {"fla-core": "0.5.1", "triton": "3.6.0"},
            "fla-core 0.5.1 is older than 0.6",
            "pip install '.[hybrid]'",
        ),
        (L4, {"fla-core": "0.6.0", "triton": "3.6.0"}, None, None),
        (
            H200,
            {"fla-core": "0.6.0", "triton": "3.6.0"},
            "Triton 3.6.0 gives wrong gradients of Gated DeltaNet on Hopper",
            "pip install 'triton>=3.7.1'; torch works with it",
        ),
        (H200, {"fla-core": "0.6.0", "triton": "3.7.1"}, None, None),
        (H200, {"fla-core": "0.6.0", "triton": "3.3.1+git5e2f"}, None, None),
    ],
)
def test_packs_of_hybrids_on_a_gpu_need_kernels(
    gpu: str,
    installed: dict[str, str],
    reason: str | None,
    fix: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delta_kernels, "_find_version", lambda name: installed.get(name, ""))
    have_gpu(tmp_path, monkeypatch, gpu)
    folder = save_hybrid(tmp_path / "model", AutoTokenizer.from_pretrained(TINY / "model"))
    flags = ("--model", folder, "--dry-run")
    if reason is None:
        assert call("sweeps.run", "samsum", "--tiny", *flags).code == 0
        return
    message, told = refused(tmp_path, *flags)
    assert message == f"{folder} trains by fla's kernels, and {reason}"
    exact = call("sweeps.run", "samsum", "--tiny", *flags, "--compute-dtype", "float32")
    assert exact.code == 0 and "kernels" not in exact.stdout  # no pack uses them in float32
    solo = call("sweeps.run", "samsum", "--tiny", *flags, "--engine", "solo")
    exact_solo = call(
        *("sweeps.run", "samsum", "--tiny", *flags),
        *("--engine", "solo", "--compute-dtype", "float32"),
    )
    if fix != delta_kernels.INSTALL:  # fla refuses in the midst of training
        assert told == fix and solo.refusal() == exact_solo.refusal() == (message, told)
        return
    assert exact_solo.code == 0
    assert told == f"{fix}; or add --engine solo, which is slower"
    assert solo.code == 0 and f"trials go on without, more slowly; {fix}" in solo.stdout
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    on_cpu = call("sweeps.run", "samsum", "--tiny", *flags)
    assert on_cpu.code == 0 and "kernels" not in on_cpu.stdout


def test_gpu_of_amd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "kfd").touch()
    monkeypatch.setattr(preflight, "DEVICES", tmp_path / "dev")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    message, fix = call("sweeps.run", "samsum").refusal()
    assert "no GPU found that runs CUDA" in message and "AMD's, with ROCm" in message
    assert "samsum --tiny" in fix
    assert call("sweeps.run", "samsum", "--tiny", "--dry-run").code == 0


def test_trial_runs_here_so_a_cluster_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with run_http2_server() as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert "no GPU found" in call("sweeps.trial", "samsum").refusal()[0]
        assert "no GPU found" not in call("sweeps.run", "samsum").refusal()[0]


def test_a_ray_of_its_own_has_no_other_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert "no GPU found" in call("sweeps.run", "samsum").refusal()[0]


def test_ray_client_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://10.0.0.1:10001")
    message, fix = refused(tmp_path)
    assert message == (
        "RAY_ADDRESS=ray://10.0.0.1:10001 is one of Ray Client, which cannot run a sweep"
    )
    assert "on a node of the cluster" in fix and "ray job submit" in fix


def test_cluster_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    message, fix = refused(tmp_path)
    assert message == "the Ray cluster at RAY_ADDRESS=127.0.0.1:9 does not answer"
    assert "RAY_ADDRESS" in fix


@pytest.mark.parametrize("address", ["http://10.0.0.1:8265", "10.0.0.1"])
def test_what_is_no_address_of_ray_is_named(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    message, fix = refused(tmp_path)
    assert message == f"RAY_ADDRESS={address} is no address of a Ray cluster"
    assert "HOST:PORT" in fix


def test_folder_that_ray_deletes_is_no_runs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where `ray job submit` runs a command."""
    folder = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0a"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    message, fix = call("sweeps.run", "samsum", "--tiny").refusal()
    assert f"the runs folder {folder}/runs lies in Ray's copy" in message
    assert "--runs-dir DIR" in fix
    assert call("sweeps.run", "samsum", "--tiny", "--dry-run", "--runs-dir", "/tmp/r").code == 0


def test_temporary_folder_that_ray_cannot_make_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/etc/passwd")
    message, fix = refused(tmp_path)
    assert "/etc/passwd is no folder that this user may write into" in message
    assert "RAY_TMPDIR=/tmp" in fix


def test_temporary_folder_too_long_for_rays_sockets_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 40)
    message, fix = refused(tmp_path)
    assert "too long a name for Ray's sockets" in message
    assert "RAY_TMPDIR=/tmp" in fix
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 20)
    assert call("sweeps.run", "samsum", "--tiny", "--dry-run").code == 0
