"""The pack against solo runs: what a trial gets does not depend on its neighbours."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from tests.examples import max_examples
from tests.trainables.packing.small_packs import (
    MAX_TOKENS,
    Plan,
    examples_of,
    largest_relative,
    longer,
    losses,
    make_pack,
    run_pack,
    run_solo,
    trial_of,
    weight_distance,
    weights_of,
)
from trainables import tiny
from trainables.config import BaseType, Hyperparameters, TrainingSettings
from trainables.data.tokens import Example
from trainables.models.base_model import load_base
from trainables.models.layer_kinds import ATTENTION, resolve_targets
from trainables.packing.compute.pack import Pack
from trainables.packing.compute.packed_batch import PackedInputs

PLAIN = Hyperparameters(lora_rank=4, lora_alpha=8, learning_rate=3e-3)
SCALED = Hyperparameters(
    lora_rank=8,
    lora_alpha=4,
    learning_rate=1e-3,
    use_rslora=True,
    target_modules=("q_proj", "up_proj", "down_proj"),
)
LATE = Hyperparameters(lora_rank=16, lora_alpha=16, learning_rate=5e-4)
NOISY = Hyperparameters(lora_rank=2, lora_alpha=64, learning_rate=3e-2, lora_dropout=0.5)


@pytest.mark.slow
def test_trials_of_a_mixed_pack_equal_their_solo_runs_over_50_steps(
    settings: TrainingSettings, examples: list[Example], tmp_path: Path
) -> None:
    settings = longer(settings, 50, eval_rows=1, weight_decay=0.1)
    other = longer(settings, 25, batch_size=8, schedule="cosine", max_grad_norm=0.3)
    late = longer(settings, 30, batch_size=6, micro_batch_size=2)  # for solo; a pack needs none
    trials = {"plain": (PLAIN, settings), "scaled": (SCALED, other), "late": (LATE, late)}
    neighbour = trial_of("noisy", NOISY, settings)
    plan: Plan = {
        3: lambda pack: pack.join(2, neighbour, examples),
        10: lambda pack: pack.join(3, trial_of("late", *trials["late"]), examples),
        17: lambda pack: pack.leave(2),
        21: lambda pack: pack.join(2, neighbour, examples),
    }
    pack = make_pack(settings, 4, max_tokens=600)
    pack.join(0, trial_of("plain", *trials["plain"]), examples)
    pack.join(1, trial_of("scaled", *trials["scaled"]), examples)
    found = run_pack(pack, plan)
    for slot, name in ((0, "plain"), (1, "scaled"), (3, "late")):
        params, own = trials[name]
        logs, weights = run_solo(params, own, tmp_path / name)
        assert [result.step for result in found[name]] == list(range(1, own.max_steps + 1))
        for key, near in (("loss", 1e-5), ("grad_norm", 1e-4), ("learning_rate", 1e-12)):
            pairs = [(getattr(a, key), b[key]) for a, b in zip(found[name], logs, strict=True)]
            moved = [pair for pair in pairs if pair != (0.0, 0.0)]
            assert largest_relative(moved) < near, key
        assert weight_distance(weights_of(pack, slot, params), weights) < 1e-4


@pytest.mark.slow
def test_trials_of_other_target_modules_share_a_pack_and_equal_their_solo_runs(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    """With the bundled model; one trial's set is a part of another's, and one has no part in it."""
    settings = longer(settings, 4, eval_rows=1, model=str(tiny.MODEL_DIR))
    pack = make_pack(settings, 3)
    sets = (("mlp",), ("all",), ("q_proj,v_proj",))
    trials = [dataclasses.replace(PLAIN, target_modules=names) for names in sets]
    for slot, params in enumerate(trials):
        pack.join(slot, trial_of(str(slot), params, settings), examples_of(settings))
    found = run_pack(pack)
    for slot, params in enumerate(trials):
        logs, weights = run_solo(params, settings, tmp_path / str(slot))
        for key, near in (("loss", 1e-5), ("grad_norm", 1e-4)):
            pairs = [(getattr(a, key), b[key]) for a, b in zip(found[str(slot)], logs, strict=True)]
            assert largest_relative(pairs) < near, key
        own = weights_of(pack, slot, params)
        assert weight_distance(own, weights) < 1e-4
        names = resolve_targets(params.target_modules, ATTENTION.linear_layers)
        assert len(own) == 2 * 4 * len(names), "A and B of each in four layers"


@pytest.mark.slow
def test_trials_over_an_unquantised_base_equal_their_solo_runs(
    settings: TrainingSettings, examples: list[Example], tmp_path: Path
) -> None:
    settings = longer(settings, 12, eval_rows=1, base="bf16")
    pack = make_pack(settings, 3)
    trials = {"plain": (0, PLAIN), "scaled": (2, SCALED)}
    for name, (slot, params) in trials.items():
        pack.join(slot, trial_of(name, params, settings), examples)
    plan: Plan = {
        2: lambda pack: pack.join(1, trial_of("noisy", NOISY, settings), examples),
        8: lambda pack: pack.leave(1),
    }
    found = run_pack(pack, plan)
    for name, (slot, params) in trials.items():
        logs, weights = run_solo(params, settings, tmp_path / name)
        pairs = zip(losses(found[name]), [log["loss"] for log in logs], strict=True)
        assert largest_relative(list(pairs)) < 1e-5
        assert weight_distance(weights_of(pack, slot, params), weights) < 1e-4
    quantised = make_pack(dataclasses.replace(settings, base="nf4"), 1)
    quantised.join(0, trial_of("plain", PLAIN, settings), examples)
    pairs = zip(losses(run_pack(quantised)["plain"]), losses(found["plain"]), strict=True)
    assert largest_relative(list(pairs)) > 1e-4


def test_unquantised_base_is_held_once(settings: TrainingSettings) -> None:
    base = load_base(settings.model, settings.compute_dtype, "bf16")
    mlp, attention = base.model.layers[0].mlp, base.model.layers[0].self_attn
    modules = [attention.q_proj, attention.k_proj, attention.v_proj, mlp.down_proj]
    before = [module.weight.clone() for module in modules]
    pack = Pack(base, 1, 16, MAX_TOKENS)
    held = [linears.weight_OD for linears in pack.model.layers[0].linears]
    owners = [held[0], held[0], held[0], held[3]]
    for module, weight, owner in zip(modules, before, owners, strict=True):
        assert owner is not None and torch.equal(module.weight, weight)
        assert module.weight.untyped_storage().data_ptr() == owner.untyped_storage().data_ptr()


@pytest.mark.parametrize("base_type", ["nf4", "bf16"])
def test_bfloat16_trial_follows_its_solo_run(
    settings: TrainingSettings, examples: list[Example], base_type: BaseType, tmp_path: Path
) -> None:
    settings = longer(settings, 6, eval_rows=1, compute_dtype="bfloat16", base=base_type)
    pack = make_pack(settings, 2)
    pack.join(1, trial_of("it", PLAIN, settings), examples)
    pack.join(0, trial_of("other", SCALED, settings), examples)
    logs, _ = run_solo(PLAIN, settings, tmp_path)
    pairs = zip(losses(run_pack(pack)["it"]), [log["loss"] for log in logs], strict=True)
    assert largest_relative(list(pairs)) < 2e-3


@pytest.mark.parametrize("folder", ["model_dir", "hybrid_dir"])
def test_dropout_does_not_depend_on_neighbours(
    settings: TrainingSettings,
    examples: list[Example],
    params: Hyperparameters,
    folder: str,
    request: pytest.FixtureRequest,
) -> None:
    settings = longer(settings, 12, model=request.getfixturevalue(folder))
    alone = make_pack(settings, 1)
    alone.join(0, trial_of("it", params, settings), examples)
    expected = run_pack(alone)["it"]
    long_rows = sorted(examples, key=lambda row: -len(row.input_ids))[:8]
    plan: Plan = {
        2: lambda pack: pack.join(0, trial_of("a", NOISY, settings), long_rows),
        5: lambda pack: pack.join(1, trial_of("b", LATE, settings), examples),
        7: lambda pack: pack.leave(0),
        9: lambda pack: pack.join(0, trial_of("c", PLAIN, settings), examples),
    }
    pack = make_pack(settings, 3)
    pack.join(2, trial_of("it", params, settings), examples)
    found = run_pack(pack, plan)["it"]
    pairs = list(zip(losses(found), losses(expected), strict=True))
    assert len(pairs) == 12
    assert largest_relative(pairs) < 1e-6
    distance = weight_distance(weights_of(pack, 2, params), weights_of(alone, 0, params))
    assert distance < 1e-5
    without = dataclasses.replace(params, lora_dropout=0.0)
    alone.leave(0)
    alone.join(0, trial_of("without", without, settings), examples)
    plain = list(zip(losses(run_pack(alone)["without"]), losses(expected), strict=True))
    assert largest_relative(plain) > 1e-4


def test_numbers_do_not_depend_on_the_size_of_a_pass(
    base: PreTrainedModel,
    settings: TrainingSettings,
    examples: list[Example],
    params: Hyperparameters,
) -> None:
    settings = longer(settings, 4, batch_size=8)
    found, num_passes = [], []
    for max_tokens in (10_000, 300, 1):
        pack = Pack(base, 2, 16, max_tokens)
        pack.join(0, trial_of("it", params, settings), examples)
        pack.join(1, trial_of("other", PLAIN, settings), examples)
        calls = count_passes(pack)
        found.append(losses(run_pack(pack)["it"]))
        num_passes.append(len(calls))
    assert num_passes[0] == 4 and num_passes[2] == 4 * 16 and 4 < num_passes[1] < 4 * 16
    assert len(found[0]) == 4
    assert found[1] == pytest.approx(found[0], rel=1e-6)
    assert found[2] == pytest.approx(found[0], rel=1e-6)


def count_passes(pack: Pack) -> list[int]:
    """Grows by the tokens of each pass that the pack runs from now on."""
    calls: list[int] = []
    whole = pack.model.losses

    def counted(embedded_ND: torch.Tensor, batch: PackedInputs) -> torch.Tensor:
        calls.append(len(embedded_ND))
        return whole(embedded_ND, batch)

    pack.model.losses = counted  # type: ignore[method-assign]
    return calls


def test_less_memory_changes_no_number(
    settings: TrainingSettings, examples: list[Example], params: Hyperparameters
) -> None:
    settings = longer(settings, 3, batch_size=12)
    pack = make_pack(settings, 2)
    pack.join(1, trial_of("it", params, settings), examples)
    expected = losses(run_pack(pack)["it"])
    pack.leave(1)
    pack.join(1, trial_of("it", params, settings), examples)
    found = pack.step()
    whole = pack.model.losses
    limit = 500

    def fill_memory(embedded_ND: torch.Tensor, batch: PackedInputs) -> torch.Tensor:
        if len(embedded_ND) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(embedded_ND, batch)

    pack.model.losses = fill_memory  # type: ignore[method-assign]
    with pytest.raises(torch.OutOfMemoryError):
        pack.step()
    assert pack.use_less_memory()
    found += run_pack(pack)["it"]
    assert losses(found) == pytest.approx(expected, rel=1e-6)
    while pack.use_less_memory():
        limit //= 2
    assert limit < 500


def test_activations_that_are_computed_again_give_the_same_numbers(
    settings: TrainingSettings, examples: list[Example]
) -> None:
    settings = longer(settings, 4)
    found = []
    for is_checkpointed in (False, True):
        pack = make_pack(settings, 2, is_checkpointed=is_checkpointed)
        dropping = dataclasses.replace(LATE, lora_dropout=0.3)
        for slot, params in enumerate((PLAIN, dropping)):
            pack.join(slot, trial_of(str(slot), params, settings), examples)
        results = run_pack(pack)
        found.append((losses(results["0"]), losses(results["1"]), pack.adapters.params_KP))
    kept, again = found
    assert kept[:2] == again[:2]
    assert torch.equal(kept[2], again[2])


@pytest.mark.parametrize("is_dequantised", [True, False])
def test_nan_fails_its_own_slot_alone(
    settings: TrainingSettings, examples: list[Example], is_dequantised: bool
) -> None:
    settings = longer(settings, 6)

    def poison(pack: Pack) -> None:
        weights = weights_of(pack, 1, LATE)
        next(iter(weights.values()))[0, 0] = torch.nan

    def replace(pack: Pack) -> None:
        pack.leave(1)
        pack.join(1, trial_of("next", PLAIN, settings), examples)

    pack = make_pack(settings, 3, is_dequantised=is_dequantised)
    for slot, name in enumerate(("a", "poisoned", "b")):
        params = LATE if name == "poisoned" else PLAIN
        pack.join(slot, trial_of(name, params, settings), examples)
    found = run_pack(pack, {3: poison, 5: replace})
    assert [result.failed for result in found["poisoned"]] == [
        None,
        None,
        "non-finite loss at step 3",
    ]
    alone = make_pack(settings, 1, is_dequantised=is_dequantised)
    alone.join(0, trial_of("it", PLAIN, settings), examples)
    expected = losses(run_pack(alone)["it"])
    assert losses(found["a"]) == pytest.approx(expected, rel=1e-6)
    assert losses(found["b"]) == pytest.approx(expected, rel=1e-6)
    assert losses(found["next"]) == pytest.approx(expected, rel=1e-6)


def test_failed_step_leaves_the_weights_as_they_were(
    settings: TrainingSettings, examples: list[Example]
) -> None:
    pack = make_pack(settings, 1)
    pack.join(0, trial_of("it", dataclasses.replace(PLAIN, learning_rate=1e30), settings), examples)
    pack.step()
    pack.step()
    before = pack.adapters.params_KP.clone()
    (result,) = pack.step()
    assert result.failed and result.step == 3
    assert torch.equal(pack.adapters.params_KP, before)
    assert pack.step() == []


def test_saved_trial_goes_on_in_another_slot_of_another_pack(
    base: PreTrainedModel,
    settings: TrainingSettings,
    examples: list[Example],
    params: Hyperparameters,
    tmp_path: Path,
) -> None:
    settings = longer(settings, 10, batch_size=8)
    trial = trial_of("it", params, settings)
    whole = make_pack(settings, 2)
    whole.join(0, trial, examples)
    expected = losses(run_pack(whole)["it"])
    pack = make_pack(settings, 2)
    pack.join(0, trial, examples)
    first = [result for _ in range(4) for result in pack.step()]
    pack.save(0, tmp_path / "saved")
    pack.leave(0)
    other = Pack(base, 3, 32, 300, is_dequantised=False)
    other.join(0, trial_of("neighbour", LATE, settings), examples)
    assert other.restore(2, trial, examples, tmp_path / "saved") == 4
    second = run_pack(other)["it"]
    assert [result.step for result in second] == list(range(5, 11))
    assert losses(first) + losses(second) == pytest.approx(expected, rel=1e-6)


def test_slot_is_refused_to_a_second_trial_and_to_a_rank_above_the_pack(
    settings: TrainingSettings, examples: list[Example]
) -> None:
    pack = make_pack(settings, 2)
    pack.join(0, trial_of("it", PLAIN, settings), examples)
    assert pack.free_slots() == [1]
    with pytest.raises(ValueError, match="slot 0 is taken"):
        pack.join(0, trial_of("other", PLAIN, settings), examples)
    with pytest.raises(ValueError, match="lora_rank is 17"):
        too_large = dataclasses.replace(PLAIN, lora_rank=17)
        pack.join(1, trial_of("other", too_large, settings), examples)
    with pytest.raises(ValueError, match="slot 1 is free"):
        pack.leave(1)
    with pytest.raises(ValueError, match="compute_dtype is 'bfloat16'"):
        other_type = dataclasses.replace(settings, compute_dtype="bfloat16")
        pack.join(1, trial_of("other", PLAIN, other_type), examples)
    assert pack.free_slots() == [1]


def test_no_order_of_joining_and_leaving_moves_a_trial(
    base: PreTrainedModel,
    settings: TrainingSettings,
    examples: list[Example],
    params: Hyperparameters,
) -> None:
    settings = longer(settings, 5)
    alone = Pack(base, 1, 16, MAX_TOKENS)
    alone.join(0, trial_of("it", params, settings), examples)
    expected = losses(run_pack(alone)["it"])
    kinds = st.sampled_from([NOISY, LATE, SCALED])

    @max_examples(5)
    @given(st.lists(st.tuples(st.integers(0, 2), kinds, st.sampled_from([2, 6])), max_size=4))
    def check(moves: list[tuple[int, Hyperparameters, int]]) -> None:
        """Each move empties a slot if it is taken, and fills it if it is free."""
        pack = Pack(base, 4, 16, MAX_TOKENS)
        pack.join(3, trial_of("it", params, settings), examples)
        found = []
        for slot, other, batch_size in moves:
            if slot in pack.free_slots():
                own = longer(settings, 50, batch_size=batch_size, micro_batch_size=2)
                pack.join(slot, trial_of("other", other, own), examples)
            else:
                pack.leave(slot)
            found += [result for result in pack.step() if result.trial_id == "it"]
        while len(found) < settings.max_steps:
            found += [result for result in pack.step() if result.trial_id == "it"]
        assert losses(found) == pytest.approx(expected, rel=1e-6)

    check()


@pytest.mark.slow
def test_steps_that_are_handed_over_together_are_those_made_one_by_one(
    base: PreTrainedModel,
    settings: TrainingSettings,
    examples: list[Example],
    params: Hyperparameters,
) -> None:
    short, long = longer(settings, 5), longer(settings, 9, batch_size=6, micro_batch_size=2)
    trials = [trial_of("short", params, short), trial_of("long", SCALED, long)]

    def join() -> Pack:
        pack = Pack(base, 2, 16, MAX_TOKENS)
        for slot, trial in enumerate(trials):
            pack.join(slot, trial, examples)
        return pack

    one_by_one = join()
    expected = run_pack(one_by_one)

    @max_examples(8)
    @given(st.lists(st.integers(1, 7), max_size=6))
    def check(strides: list[int]) -> None:
        together = join()
        found = [result for most in [*strides, 9] for result in together.step(most)]
        for trial in trials:
            own = [one for one in found if one.trial_id == trial.trial_id]
            assert own == expected[trial.trial_id]
        assert torch.equal(one_by_one.adapters.params_KP, together.adapters.params_KP)

    check()


def test_steps_behind_a_failed_one_are_not_told(
    settings: TrainingSettings, examples: list[Example]
) -> None:
    settings = longer(settings, 6)
    hot = dataclasses.replace(PLAIN, learning_rate=1e30)
    pack = make_pack(settings, 2)
    for slot, params in enumerate((hot, PLAIN)):
        pack.join(slot, trial_of(str(slot), params, settings), examples)
    found = pack.step(6)
    assert [result.step for result in found if result.trial_id == "0"] == [1, 2, 3]
    assert [result.step for result in found if result.failed] == [3]
    assert [result.step for result in found if result.trial_id == "1"] == [1, 2, 3, 4, 5, 6]
    assert pack.step() == []


@pytest.mark.parametrize("full_at", [(3,), (3, 4)])
def test_memory_that_runs_out_in_a_later_step_costs_no_earlier_one(
    settings: TrainingSettings, examples: list[Example], full_at: tuple[int, ...]
) -> None:
    settings = longer(settings, 5)
    pack = make_pack(settings, 2)
    pack.join(1, trial_of("it", PLAIN, settings), examples)
    expected = losses(run_pack(pack)["it"])
    pack.leave(1)
    pack.join(1, trial_of("it", PLAIN, settings), examples)
    step = pack._optimizer.step
    calls: list[int] = []

    def full(*args: Any) -> torch.Tensor:
        calls.append(len(calls))
        if len(calls) in full_at:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(*args)

    pack._optimizer.step = full  # type: ignore[method-assign]
    found = pack.step(4)
    assert [result.step for result in found] == [1, 2]
    if 4 in full_at:
        with pytest.raises(torch.OutOfMemoryError):  # the third step again, with none to be read
            pack.step(4)
        pack.use_less_memory()
    found += pack.step(9)
    assert [result.step for result in found] == [1, 2, 3, 4, 5]
    assert losses(found) == pytest.approx(expected, rel=1e-6)
