"""The benchmark of scaling compares sweeps by the work that each GPU does in a second."""

import pytest

from sweeps.cli import run_command
from tests.benchmarks.scaling import Measured, compare_sweeps, main


def make_measured(num_gpus: int, num_trials: int, trials_s: float, trial_steps: int) -> Measured:
    return Measured(
        num_gpus=num_gpus,
        num_trials=num_trials,
        command_s=trials_s + 40,
        first_trial_s=20.0,
        last_report_s=trials_s + 20,
        trials_s=trials_s,
        trial_steps=trial_steps,
        packs=(),
    )


def test_ideal_of_weak_scaling_takes_as_long_on_more_gpus() -> None:
    first, second = make_measured(1, 64, 100, 1000), make_measured(2, 128, 100, 2000)
    _, two, four = compare_sweeps([first, second, make_measured(4, 256, 125, 5000)])
    assert two == {
        "num_gpus": 2,
        "trials_efficiency": 1.0,
        "steps_efficiency": 1.0,
        "command_efficiency": 1.0,
    }
    assert (four["trials_efficiency"], four["steps_efficiency"]) == (0.8, 1.0)


def test_ideal_of_strong_scaling_takes_a_share_of_the_time() -> None:
    _, two = compare_sweeps([make_measured(1, 256, 100, 1000), make_measured(2, 256, 50, 1000)])
    assert (two["trials_efficiency"], two["command_efficiency"]) == (1.0, 0.7778)


@pytest.mark.parametrize("flags", [[], ["--num-trials", "2", "--trials-per-gpu", "1"]])
def test_one_kind_of_scaling_is_asked_for(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_command(lambda: main(flags))
    assert "--trials-per-gpu" in capsys.readouterr().err
