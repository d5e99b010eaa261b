"""A whole sweep of the bundled hybrid, whose three layers of four are Gated DeltaNet."""

from pathlib import Path

from safetensors import safe_open

from tests.sweeps import small_sweep
from tests.sweeps.small_sweep import FLAGS
from trainables.models.layer_kinds import GATED_DELTA_NET


def test_sweep_of_the_bundled_hybrid_is_whole_and_adapts_every_kind_of_layer(
    tmp_path: Path,
) -> None:
    flags = (*FLAGS, "--model", "tiny-hybrid", "--num-trials", "3", "--target-modules", "all")
    code, output = small_sweep.run(tmp_path, "hybrid", *flags)
    assert code == 0, output
    trials = small_sweep.check_whole(tmp_path / "hybrid", "hybrid", 3)
    assert {trial.status for trial in trials} >= {"completed"}
    with safe_open(tmp_path / "hybrid" / "best" / "adapter_model.safetensors", "pt") as weights:
        names = list(weights.keys())  # the file is no dict
        adapted = {name.split(".")[6] for name in names if ".layers.0." in name}
    assert adapted == set(GATED_DELTA_NET.linear_layers) - {"in_proj_a", "in_proj_b"}
