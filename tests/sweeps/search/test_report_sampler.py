"""What a sampler is shown: every trial that has reported, whatever its state, on one scale."""

import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from sweeps.search.report_sampler import ReportSampler, expect_final_values

DISTRIBUTIONS = {
    "rate": FloatDistribution(1e-5, 1e-2, log=True),
    "rank": CategoricalDistribution((8, 16)),
    "fixed": CategoricalDistribution((True,)),
}


def test_a_trial_gains_what_others_gained_between_the_same_rungs() -> None:
    reported = [{1: 10.0, 3: 14.0, 9: 15.0}, {1: 8.0, 3: 14.0}, {1: 7.0}, {}]
    assert expect_final_values(reported) == [15.0, 15.0, 7.0 + 5.0 + 1.0, None]


def test_before_any_trial_has_gone_on_values_stand_as_they_are() -> None:
    assert expect_final_values([{1: 3.0}, {1: 2.0}]) == [3.0, 2.0]
    assert expect_final_values([{}, {}]) == [None, None]


@given(
    st.lists(
        st.lists(st.floats(0, 50), min_size=0, max_size=3).map(
            lambda values: dict(zip((100, 300, 900), values, strict=False))
        ),
        max_size=12,
    )
)
def test_trials_of_one_rung_keep_their_order(reported: list[dict[int, float]]) -> None:
    finals = expect_final_values(reported)
    for one, final in zip(reported, finals, strict=True):
        assert (final is None) == (not one)
        for other, other_final in zip(reported, finals, strict=True):
            if one and other and max(one) == max(other) and one[max(one)] < other[max(other)]:
                assert final is not None and other_final is not None
                assert final <= other_final


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_points_are_drawn_near_a_running_trial_that_reports_well(direction: str) -> None:
    study = optuna.create_study(direction=direction)
    sign = 1 if direction == "maximize" else -1
    for number in range(20):
        rate = 1e-5 * 1000 ** (number / 19)
        study.enqueue_trial({"rate": rate, "rank": 8})
        trial = study.ask(DISTRIBUTIONS)
        score = -((math.log10(rate) + 3) ** 2)
        trial.report(sign * score, 1)
        if score < -0.2:  # the good ones go on
            study.tell(trial, state=TrialState.PRUNED)
    shown, stock = (
        [drawn(study, seed, sees_reports=sees) for seed in range(20)] for sees in (True, False)
    )
    assert median_distance(shown) < 0.5
    assert median_distance(stock) > median_distance(shown)


def test_a_fixed_parameter_and_trials_that_have_not_reported_do_no_harm() -> None:
    study = optuna.create_study(sampler=sampler(0, sees_reports=True))
    for _ in range(5):
        trial = study.ask(DISTRIBUTIONS)
        assert trial.params["fixed"] is True
    study.tell(0, state=TrialState.FAIL)
    assert set(study.ask(DISTRIBUTIONS).params) == set(DISTRIBUTIONS)


def test_the_study_itself_keeps_its_states_and_values() -> None:
    study = optuna.create_study(direction="maximize", sampler=sampler(0, sees_reports=True))
    stopped, running = (study.ask(DISTRIBUTIONS) for _ in range(2))
    for trial in (stopped, running):
        trial.report(1.0, 1)
    study.tell(stopped, state=TrialState.PRUNED)
    for _ in range(2):  # the second beside one that has not reported
        study.ask(DISTRIBUTIONS)
    states = [trial.state for trial in study.get_trials()]
    assert states == [TrialState.PRUNED, *[TrialState.RUNNING] * 3]
    assert study.get_trials()[0].intermediate_values == {1: 1.0}


def sampler(seed: int, *, sees_reports: bool) -> optuna.samplers.BaseSampler:
    stock = optuna.samplers.TPESampler(
        multivariate=True, constant_liar=True, n_startup_trials=5, seed=seed
    )
    return ReportSampler(stock) if sees_reports else stock


def drawn(study: optuna.Study, seed: int, *, sees_reports: bool) -> float:
    """The learning rate of a new trial, which the study then forgets as failed."""
    study.sampler = sampler(seed, sees_reports=sees_reports)
    trial = study.ask(DISTRIBUTIONS)
    study.tell(trial, state=TrialState.FAIL)
    return float(trial.params["rate"])


def median_distance(rates: list[float]) -> float:
    """Decades from the best learning rate."""
    return sorted(abs(math.log10(rate) + 3) for rate in rates)[len(rates) // 2]
