"""Packs over Qwen3.5's hybrid decoder: training, answers, losses and labels as of one alone."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from tests.trainables.packing.small_packs import (
    Plan,
    largest_relative,
    longer,
    make_pack,
    run_pack,
    run_solo,
    trial_of,
    weight_distance,
    weights_of,
)
from trainables.config import BaseType, Hyperparameters, TrainingSettings
from trainables.data.prepared_rows import read_rows
from trainables.data.rows import Scoring
from trainables.data.tokens import Example, encode_rows, encode_targets
from trainables.models.base_model import load_base, load_tokenizer
from trainables.models.chat_template import list_stop_ids
from trainables.models.model_facts import read_model_facts
from trainables.packing.compute.mixers.gated_delta import DeltaState
from trainables.packing.compute.pack import Pack
from trainables.packing.compute.peft_format import read_adapter
from trainables.packing.evaluation import decode
from trainables.packing.evaluation.classify import compute_label_log_probs
from trainables.packing.evaluation.evaluator import PackEvaluator
from trainables.packing.evaluation.generate import generate, pad_right
from trainables.packing.evaluation.slot_decoder import KeysValues, LayerState, SlotDecoder
from trainables.solo import evaluate

WIDE = Hyperparameters(lora_rank=16, lora_alpha=16, learning_rate=2e-3)
NARROW = Hyperparameters(
    lora_rank=3, lora_alpha=6, learning_rate=4e-3, target_modules=("attention", "in_proj_a")
)
NOISY = Hyperparameters(lora_rank=2, lora_alpha=64, learning_rate=3e-2, lora_dropout=0.5)
ADAPTED = {2: WIDE, 0: NARROW}
"""Slots of a pack of three."""


@pytest.fixture
def settings(settings: TrainingSettings, hybrid_dir: str) -> TrainingSettings:
    """The test-sized hybrid in float32."""
    return dataclasses.replace(settings, model=hybrid_dir, compute_dtype="float32")


@pytest.mark.slow
@pytest.mark.parametrize(("base_type", "num_steps", "far"), [("nf4", 50, 5e-4), ("bf16", 12, 2e-4)])
def test_trials_of_a_pack_equal_their_solo_runs_whoever_joins_and_leaves(
    settings: TrainingSettings,
    examples: list[Example],
    base_type: BaseType,
    num_steps: int,
    far: float,
    tmp_path: Path,
) -> None:
    settings = longer(settings, num_steps, eval_rows=1, base=base_type)
    late = longer(settings, num_steps // 2)
    neighbour = trial_of("noisy", NOISY, settings)
    plan: Plan = {
        3: lambda pack: pack.join(2, neighbour, examples),
        4: lambda pack: pack.join(1, trial_of("late", NARROW, late), examples),
        7: lambda pack: pack.leave(2),
    }
    pack = make_pack(settings, 3, max_tokens=400)
    pack.join(0, trial_of("wide", WIDE, settings), examples)
    found = run_pack(pack, plan)
    for slot, name, params, own in ((0, "wide", WIDE, settings), (1, "late", NARROW, late)):
        logs, weights = run_solo(params, own, tmp_path / name)
        for key, near in (("loss", 1e-5), ("grad_norm", 1e-4)):
            pairs = [(getattr(a, key), b[key]) for a, b in zip(found[name], logs, strict=True)]
            assert largest_relative(pairs) < near, key
        assert weight_distance(weights_of(pack, slot, params), weights) < far


@dataclasses.dataclass
class Case:
    """A pack of random adapters, and the same in PEFT."""

    pack: Pack
    peft: PeftModel
    examples: list[Example]

    @property
    def decoder(self) -> SlotDecoder:
        return SlotDecoder.from_slots(self.pack.model, list(ADAPTED))


@pytest.fixture
def examples_with_targets(settings: TrainingSettings, rows_dir: Path) -> list[Example]:
    return encode_rows(load_tokenizer(settings.model), read_rows(rows_dir).validation, 100)


def random_pack(settings: TrainingSettings, examples: list[Example], **options: bool) -> Pack:
    pack = make_pack(settings, 3, **options)
    generator = torch.Generator().manual_seed(5)
    for slot, params in ADAPTED.items():
        pack.join(slot, trial_of(str(slot), params, settings), examples)
        for weights in weights_of(pack, slot, params).values():
            weights.copy_(torch.randn(weights.shape, generator=generator) * 0.1)
    return pack


@pytest.fixture
def case(settings: TrainingSettings, examples_with_targets: list[Example], tmp_path: Path) -> Case:
    pack, examples = random_pack(settings, examples_with_targets), examples_with_targets
    for slot in ADAPTED:
        pack.save(slot, tmp_path / str(slot))
    base = load_base(settings.model, "float32")
    peft = PeftModel.from_pretrained(base, str(tmp_path / "2"), adapter_name="2")
    peft.load_adapter(str(tmp_path / "0"), adapter_name="0")
    return Case(pack, peft, examples)


def test_saved_adapter_names_its_layers_one_by_one(case: Case, tmp_path: Path) -> None:
    """PEFT knows no words for sets, and takes its layers by the ends of their names."""
    attention = {"q_proj", "k_proj", "v_proj", "o_proj", "in_proj_qkv", "in_proj_z", "out_proj"}
    expected = {2: attention | {"gate_proj", "up_proj", "down_proj"}, 0: attention | {"in_proj_a"}}
    for slot, names in expected.items():
        weights, params = read_adapter(tmp_path / str(slot))
        assert set(params.target_modules) == names
        assert {name.split(".")[-3] for name in weights} == names
        own = case.peft.peft_config[str(slot)].target_modules
        assert isinstance(own, set) and own == names
        adapted = [n for n, _ in case.peft.named_modules() if n.endswith(f"lora_A.{slot}")]
        assert len(adapted) == len(weights) / 2 > 0


@pytest.mark.parametrize("max_tokens", [1, 4000])
@pytest.mark.slow
def test_answers_and_losses_are_those_of_peft(
    case: Case, settings: TrainingSettings, max_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also once finished rows have left the batch."""
    monkeypatch.setattr(decode, "CHECK_STEPS", 2)
    tokenizer = load_tokenizer(settings.model)
    stops = [*list_stop_ids(tokenizer), *range(30, 60)]  # so that answers end at different lengths
    case.examples += [Example.from_ids([7], [8, 9]), Example.from_ids([8, 9], [])]
    answers, losses_KS = generate(
        case.decoder,
        case.examples,
        stop_ids=stops,
        max_new_tokens=12,
        max_tokens_per_batch=max_tokens,
    )
    assert len({len(answer) for of_slot in answers for answer in of_slot}) > 2
    for number, slot in enumerate(ADAPTED):
        case.peft.set_adapter(str(slot))
        assert answers[number] == greedy(case.peft, case.examples, stops, 12)
        with torch.no_grad():
            expected = [
                loss for loss, _ in evaluate.compute_row_losses(case.peft, case.examples, 5)
            ]
        torch.testing.assert_close(losses_KS[number].tolist(), expected, rtol=1e-5, atol=1e-5)


def greedy(
    model: PeftModel, examples: Sequence[Example], stops: Sequence[int], limit: int
) -> list[list[int]]:
    """Answers without a cache, token by token."""
    answers = []
    for example in examples:
        ids: list[int] = []
        while len(ids) < limit:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*example.prompt_ids, *ids]])).logits
            token = int(logits[0, -1].argmax())
            if token in stops:
                break
            ids.append(token)
        answers.append(ids)
    return answers


@pytest.mark.parametrize("max_tokens", [1, 4000])
@pytest.mark.slow
def test_labels_are_as_likely_as_in_peft(
    case: Case, settings: TrainingSettings, max_tokens: int
) -> None:
    """Labels that share beginnings, that begin others, of one token and of more than a chunk; and
    prompts shorter than the convolution."""
    labels = encode_targets(load_tokenizer(settings.model), ["map", "a map", "tickets", "a cake"])
    labels += [[9], [7], [7, 8], [7, 8, 9, 6, 5], [7, 8, 9, 5, 6, 1], [7, *range(5, 75)]]
    prompts = [[7], [8, 9], *(example.prompt_ids for example in case.examples)]
    found_KSL = compute_label_log_probs(case.decoder, prompts, labels, max_tokens)
    for number, slot in enumerate(ADAPTED):
        case.peft.set_adapter(str(slot))
        with torch.no_grad():
            expected_SL = evaluate.compute_label_log_probs(case.peft, prompts, labels, 5)
        torch.testing.assert_close(found_KSL[number], expected_SL, rtol=0, atol=5e-5)


@pytest.mark.parametrize("limit", [1, 1500, 4000])
def test_caches_of_answers_and_labels_are_as_large_as_allowed(
    case: Case, settings: TrainingSettings, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bytes: rows keep a state each."""
    facts = read_model_facts(settings.model)
    allowed = limit * facts.count_position_bytes(itemsize=4)
    found: list[tuple[int, int, int]] = []
    make_cache = SlotDecoder.make_cache

    def count_cache(self: SlotDecoder, num_rows: int, num_positions: int) -> list[LayerState]:
        cache = make_cache(self, num_rows, num_positions)
        held = {KeysValues: 0, DeltaState: 0}
        for state in cache:
            held[type(state)] += sum(part.nbytes for part in state)
        found.append((num_rows, held[KeysValues], held[DeltaState]))
        return cache

    def check() -> None:
        assert sum(num_rows for num_rows, _, _ in found) >= len(case.examples)
        assert limit == 1 or max(num_rows for num_rows, _, _ in found) > 1
        for num_rows, keys, states in found:
            assert states > 0
            assert num_rows == 1 or keys + states <= allowed

    monkeypatch.setattr(SlotDecoder, "make_cache", count_cache)
    options = {"stop_ids": [1], "max_new_tokens": 2, "max_tokens_per_batch": limit}
    generate(case.decoder, case.examples, **options)  # type: ignore[arg-type]
    check()
    found.clear()
    labels = encode_targets(load_tokenizer(settings.model), ["map", "a map"])
    compute_label_log_probs(case.decoder, [e.prompt_ids for e in case.examples], labels, limit)
    check()


@pytest.mark.slow
def test_evaluation_with_less_memory_has_room_for_fewer_rows_until_one_of_one_slot_is_left(
    case: Case, settings: TrainingSettings, rows_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, int]] = []
    make_cache = SlotDecoder.make_cache

    def count_cache(self: SlotDecoder, num_rows: int, num_positions: int) -> list[LayerState]:
        shapes.append((self.num_slots * num_rows, num_positions))
        return make_cache(self, num_rows, num_positions)

    monkeypatch.setattr(SlotDecoder, "make_cache", count_cache)
    model, settings = case.pack.model, dataclasses.replace(settings, max_new_tokens=2)
    rows, scoring = read_rows(rows_dir).validation[:2], Scoring(language="english")
    tokenizer, state = load_tokenizer(settings.model), model.state_positions
    evaluator = PackEvaluator(tokenizer, rows, scoring, settings, 2000, False, state)
    largest = []
    has_less = True
    while has_less:
        shapes.clear()
        evaluator.evaluate(model, list(ADAPTED))
        largest.append(max(num_rows for num_rows, _ in shapes))
        assert largest[-1] == 1 or all(
            num_rows * (num_positions + state) <= evaluator.max_tokens
            for num_rows, num_positions in shapes
        )
        has_less = evaluator.use_less_memory()
    assert largest == sorted(largest, reverse=True)
    assert (largest[0], largest[-1]) == (4, 1)


def test_saved_trial_goes_on_as_if_nothing_had_happened(
    settings: TrainingSettings, examples: list[Example], tmp_path: Path
) -> None:
    settings = longer(settings, 6)
    trial = trial_of("t", WIDE, settings)
    whole, first, second = (make_pack(settings, 2) for _ in range(3))
    whole.join(0, trial, examples)
    undisturbed = [result.loss for result in run_pack(whole)["t"]]
    first.join(0, trial, examples)
    for _ in range(3):
        first.step()
    first.save(0, tmp_path / "saved")
    second.restore(1, trial, examples, tmp_path / "saved")
    assert [result.loss for result in run_pack(second)["t"]] == undisturbed[3:]


@pytest.mark.gpu
def test_kernels_evaluate_as_plain_functions_do(
    settings: TrainingSettings, examples_with_targets: list[Example]
) -> None:
    """In bfloat16; answers that are decoded by CUDA graphs are those without."""
    pytest.importorskip("fla", reason="needs fla-core: pip install '.[hybrid]'")
    examples = [*examples_with_targets, Example.from_ids([7], [8, 9]), Example.from_ids([8, 9], [])]
    labels = [[9], [7], [7, 8], [7, 8, 9, 6, 5], [7, 8, 9, 5, 6, 1], [7, *range(5, 75)]]
    answers, losses, log_probs = [], [], []
    for dtype, is_graphed in (("float32", False), ("bfloat16", False), ("bfloat16", True)):
        own = dataclasses.replace(settings, compute_dtype=dtype)
        decoder = SlotDecoder.from_slots(
            random_pack(own, examples, is_fast=dtype == "bfloat16").model, list(ADAPTED)
        )
        answers_KS, losses_KS = generate(
            decoder,
            examples,
            stop_ids=[1, *range(30, 60)],
            max_new_tokens=24,
            max_tokens_per_batch=4000,
            is_graphed=is_graphed,
        )
        answers.append(answers_KS)
        losses.append(losses_KS)
        log_probs.append(
            compute_label_log_probs(decoder, [e.prompt_ids for e in examples], labels, 4000)
        )
    assert answers[1] == answers[2]
    assert float((losses[1] - losses[0]).norm() / losses[0].norm()) < 2e-2
    assert float((log_probs[1] - log_probs[0]).norm() / log_probs[0].norm()) < 2e-2


@pytest.mark.gpu
def test_a_step_gives_what_reading_gives_on_kernels(
    settings: TrainingSettings, examples_with_targets: list[Example]
) -> None:
    """In bfloat16: the tokens of targets one by one, behind their prompts."""
    pytest.importorskip("fla", reason="needs fla-core: pip install '.[hybrid]'")
    own = dataclasses.replace(settings, compute_dtype="bfloat16")
    model = random_pack(own, examples_with_targets, is_fast=True).model
    decoder = SlotDecoder.from_slots(model, list(ADAPTED))
    num_targets = min(len(example.target_ids) for example in examples_with_targets)
    assert num_targets > 2
    ids_ST, lengths_S = pad_right(examples_with_targets, decoder.device)
    cache = decoder.make_cache(*ids_ST.shape)
    with torch.no_grad():
        read_KSTD = decoder.prefill(ids_ST, lengths_S, cache, num_targets)
        read_KSTD = read_KSTD.unflatten(1, ids_ST.shape)  # type: ignore[no-untyped-call]
        rotation, rows_S = decoder.compute_rotation(ids_ST.shape[1]), torch.arange(len(ids_ST))
        for number in range(num_targets):
            tokens_S = ids_ST[rows_S, lengths_S + number]
            both = (x.repeat(len(ADAPTED), 1) for x in (tokens_S, lengths_S + number))
            is_done_KS = torch.zeros(read_KSTD.shape[:2], dtype=torch.bool, device=decoder.device)
            found_KSD = decoder.step(*both, cache, rotation, is_done_KS)
            expected_KSD = read_KSTD[:, rows_S, lengths_S + number]
            error = (found_KSD - expected_KSD).float().norm() / expected_KSD.float().norm()
            assert float(error) < 2e-2
