"""Where GPU-seconds went and what was saved: sums that hold, and claims with what they rest on."""

import csv
import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.cost.allocation import Allocation
from sweeps.cost.gpu_time import account_gpu_time, sum_shares_by_trial
from sweeps.records import trials_csv
from tests.sweeps.invented_sweep import METRIC, make_history
from tests.sweeps.small_costs import make_model, make_throughput
from trainables.packing.service.ledger import Ledger, Share

MODEL = make_model(max_steps=9, low_rung_eval_rows=10, eval_rows=20)
PACKS = MODEL.allocation
THROUGHPUT = make_throughput(
    device="H200", step_fixed_s=0.4, step_trial_s=0.1, batch_fixed_s=1.0, row_s=0.1, batch_rows=100
)
HISTORIES = [
    make_history(0, "completed", (1, 1.0), (3, 2.0), (9, 3.0)),
    make_history(1, "stopped", (1, 0.5), reason="place 2 of 2 at step 1"),
    make_history(2, "stopped", (1, 0.6), reason=trials_csv.BUDGET_REASON),
    make_history(3, "completed", (1, 1.0), (3, 2.0), (9, 3.0)),
    dataclasses.replace(
        make_history(0, "completed", (1, 1.0), (3, 2.0), (9, 3.0)),
        trial_id="f0000s1", final_of="t0000", seed=1,
    ),
]  # fmt: skip


def ledger_of(shares: dict[str, float], **seconds: float) -> Ledger:
    found = {name: Share(seconds=s, trained_tokens=10) for name, s in shares.items()}
    return Ledger(
        device="cpu", started=0.0, seconds={"train": 0.0, **seconds}, shares=found, trial_steps=0,
        real_tokens=0, computed_tokens=0,
    )  # fmt: skip


LEDGERS = [
    ledger_of({"t0000": 8.0, "t0001": 2.0}, load=5.0, train=11.0),
    ledger_of(
        {"t0000": 4.0, "t0002": 1.0, "t0003": 8.0, "f0000s1": 9.0},
        load=4.0, train=20.0, evaluate=3.0, idle=6.0, test=2.0,
    ),
]  # fmt: skip


def accounted(**changes: Any) -> tuple[dict[str, Any], list[str]]:
    known: dict[str, Any] = {"ledgers": LEDGERS, "throughput": THROUGHPUT}
    known |= changes
    shares = sum_shares_by_trial(PACKS, (), known["ledgers"])
    records = [
        dataclasses.replace(record, share=shares.get(record.trial_id)) for record in HISTORIES
    ]
    return account_gpu_time(records, known["ledgers"], MODEL, known["throughput"])


def test_a_trial_that_two_packs_trained_is_charged_by_both() -> None:
    shares = sum_shares_by_trial(PACKS, (), LEDGERS)
    assert shares["t0000"] == Share(seconds=12.0, trained_tokens=20)


def test_trials_finals_and_overhead_sum_to_the_wall_time_of_all_packs() -> None:
    fields, _ = accounted()
    assert fields["search_s"] == 12 + 2 + 1 + 8 and fields["finals_s"] == 9
    assert fields["overhead_s"]["load"] == 9.0
    total_s = fields["search_s"] + fields["finals_s"] + sum(fields["overhead_s"].values())
    assert total_s == pytest.approx(sum(ledger.wall_s for ledger in LEDGERS))
    assert fields["overhead_s"]["other"] == pytest.approx(11 + 23 - 32)


def test_asha_saves_what_stopped_trials_would_have_cost_at_the_mean_of_the_completed() -> None:
    fields, _ = accounted()
    full_s = (12 + 8 + 9) / 3  # a run of the finals is one too
    assert fields["full_trial_s"] == pytest.approx(full_s)
    # t0002 was stopped by the budget, not by ASHA
    assert fields["saved_by_asha_s"] == pytest.approx(full_s - 2)


def test_packing_is_set_against_the_same_work_in_packs_of_one() -> None:
    fields, lines = accounted()
    whole_s = 9 * 0.5 + (1.0 + 1.0) * 2 + (1.0 + 2.0)
    first_s = 1 * 0.5 + (1.0 + 1.0)
    assert fields["alone_s"] == pytest.approx(3 * whole_s + 2 * first_s)
    saved = f"saved by packing: {(fields['alone_s'] - 32) / 3600:.3g} GPU-hours"
    assert lines[2].startswith(saved)
    fields, lines = accounted(throughput=None)
    assert fields["alone_s"] is None and len(lines) == 2


def test_packs_on_a_cpu_are_not_set_against_anything() -> None:
    fields, lines = accounted(throughput=replace(THROUGHPUT, device="cpu"))
    assert fields["alone_s"] is None and len(lines) == 2


def test_what_is_not_known_is_not_claimed() -> None:
    fields, lines = account_gpu_time(HISTORIES[1:2], [], MODEL, None)
    assert fields["full_trial_s"] is None and fields["saved_by_asha_s"] is None
    assert lines == []


def test_the_words_say_what_the_claims_rest_on() -> None:
    _, lines = accounted()
    assert lines[0].startswith("GPU time: 0.0142 GPU-hours (2 packs): trials 45%, finals 18%")
    assert "against training every stopped trial to its end at the completed ones' mean" in lines[1]
    assert "in packs of one (estimated from a few steps before the first trial)" in lines[2]
    assert lines[2].startswith("saved by packing: ")
    fast = make_throughput(device="H200", step_fixed_s=0.01)
    assert accounted(throughput=fast)[1][2].startswith("lost by packing: ")


def test_trials_that_train_alone_share_their_gpu_evenly() -> None:
    allocation = Allocation(
        num_slots=4, most_trials=4, most_runs=4, num_cpus=8, num_gpus=2, slots_per_gpu=2
    )
    shares = sum_shares_by_trial(allocation, HISTORIES[:2], [])
    assert shares["t0000"].seconds == 18.0 / 2 and shares["t0001"].seconds == 2.0 / 2
    packed = dataclasses.replace(allocation, capacities=PACKS.capacities)
    assert sum_shares_by_trial(packed, HISTORIES[:2], LEDGERS)["t0000"].seconds == 12.0


def test_the_table_of_trials_has_each_share_also_of_a_trial_without_a_report(
    tmp_path: Path,
) -> None:
    histories = [*HISTORIES[:1], make_history(4, "failed", reason="non-finite loss at step 1")]
    shares = {"t0000": Share(seconds=1.5, scored_tokens=7), "t0004": Share(seconds=0.25)}
    trials = [replace(h, share=shares.get(h.trial_id)) for h in histories]
    trials_csv.write_csv(trials, METRIC, tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open() as file:
        found = {row["trial_id"]: row for row in csv.DictReader(file)}
    assert (found["t0000"]["gpu_seconds"], found["t0000"]["scored_tokens"]) == ("1.5", "7")
    assert found["t0000"]["tokens"] == "900" and found["t0000"]["peak_gib"] == "1.5"
    assert (found["t0004"]["gpu_seconds"], found["t0004"]["tokens"]) == ("0.25", "")
