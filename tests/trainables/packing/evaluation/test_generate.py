"""Packed answers and losses, against transformers' generate on stock PEFT, adapter by adapter."""

import dataclasses
import itertools
import math
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen3Config,
    set_seed,
)

from tests.examples import max_examples
from tests.trainables.packing.small_packs import pass_of, trial_of, weights_of
from trainables.config import Hyperparameters, TaskOptions, TrainingSettings
from trainables.data.rows import Row, Scoring
from trainables.data.tasks import TASKS
from trainables.data.tokens import Example, encode_rows
from trainables.models.base_model import load_base, load_tokenizer
from trainables.models.chat_template import list_stop_ids
from trainables.packing.compute.adapters import Adapters
from trainables.packing.compute.model import PackedModel
from trainables.packing.compute.pack import Pack
from trainables.packing.compute.pass_shapes import round_up
from trainables.packing.evaluation import decode, slot_decoder
from trainables.packing.evaluation import generate as generation
from trainables.packing.evaluation.evaluator import PackEvaluator
from trainables.packing.evaluation.generate import READ_MULTIPLE, generate, group_rows
from trainables.packing.evaluation.slot_decoder import KeysValues, SlotDecoder
from trainables.solo import evaluate
from trainables.tiny import MODEL_DIR, SAMSUM_DIR

pytestmark = pytest.mark.slow

SETTINGS = TrainingSettings(
    rows_dir=Path("/none"),
    model=str(MODEL_DIR),
    max_steps=1,
    rungs=(1,),
    max_length_tokens=256,
    eval_batch_size=5,
    max_new_tokens=20,
    compute_dtype="float32",
)
ADAPTED = {
    4: (Hyperparameters(lora_rank=2, lora_alpha=4, learning_rate=1e-3), 0.09),
    0: (
        Hyperparameters(lora_rank=16, lora_alpha=4, learning_rate=1e-3, use_rslora=True),
        0.05,
    ),
    2: (
        Hyperparameters(
            lora_rank=5,
            lora_alpha=4,
            learning_rate=1e-3,
            target_modules=("q_proj", "v_proj", "down_proj"),
        ),
        0.15,
    ),
}
"""Slots of a pack of five, with the size of their random weights; the other slots are empty."""
SLOTS = tuple(ADAPTED)
CPU = torch.device("cpu")


@dataclasses.dataclass
class Case:
    """A pack, its adapters in PEFT, and what to ask them."""

    pack: Pack
    peft: PeftModel
    tokenizer: PreTrainedTokenizerBase
    rows: list[Row]
    examples: list[Example]
    answers: list[list[list[int]]]
    """What transformers generates for each slot of SLOTS."""

    @property
    def prompts(self) -> list[list[int]]:
        return [example.prompt_ids for example in self.examples]

    def ask(self, slots: Sequence[int] = SLOTS, **options: Any) -> list[list[list[int]]]:
        """Packed answers."""
        chosen = {"max_new_tokens": SETTINGS.max_new_tokens, "max_tokens_per_batch": 4000}
        stops = list_stop_ids(self.tokenizer)
        prompts = options.pop("prompts", self.prompts)
        return ask(self.pack.model, slots, prompts, stop_ids=stops, **(chosen | options))

    def losses(self, max_tokens: int) -> list[float]:
        """Packed losses of SLOTS, a labelled token."""
        _, losses_KS = generate(
            SlotDecoder.from_slots(self.pack.model, SLOTS),
            self.examples,
            stop_ids=[],
            max_new_tokens=1,
            max_tokens_per_batch=max_tokens,
        )
        num_labels = sum(len(example.target_ids) for example in self.examples)
        means: list[float] = (losses_KS.sum(dim=1) / num_labels).tolist()
        return means


def ask(
    model: PackedModel, slots: Sequence[int], prompts: Sequence[list[int]], **options: Any
) -> list[list[list[int]]]:
    """Packed answers to prompts alone."""
    examples = [Example.from_ids(prompt, []) for prompt in prompts]
    answers, losses_KS = generate(SlotDecoder.from_slots(model, slots), examples, **options)
    assert not losses_KS.any()
    return answers


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("adapters")
    tokenizer = load_tokenizer(SETTINGS.model)
    rows = list(TASKS["samsum"](TaskOptions()).load(str(SAMSUM_DIR)).validation)[:12]
    examples = encode_rows(tokenizer, rows, 200)
    pack = random_pack(examples, folder)
    base = load_base(SETTINGS.model, "float32")
    peft = PeftModel.from_pretrained(base, str(folder / "4"), adapter_name="4")
    for slot in SLOTS[1:]:
        peft.load_adapter(str(folder / str(slot)), adapter_name=str(slot))
    answers = []
    for slot in SLOTS:
        peft.set_adapter(str(slot))
        prompts = [example.prompt_ids for example in examples]
        answers.append(evaluate.generate(peft, tokenizer, prompts, 5, SETTINGS.max_new_tokens))
    return Case(pack, peft, tokenizer, rows, examples, answers)


def random_pack(examples: list[Example], folder: Path, **options: Any) -> Pack:
    """The adapters of ADAPTED, also saved under the numbers of their slots."""
    torch.manual_seed(3)
    pack = Pack(load_base(SETTINGS.model, SETTINGS.compute_dtype), 5, 16, 1000, **options)
    for slot, (params, size) in ADAPTED.items():
        pack.join(slot, trial_of(str(slot), params, SETTINGS), examples)
        for weights in weights_of(pack, slot, params).values():
            weights.normal_(std=size)
        pack.save(slot, folder / str(slot))
    return pack


def test_answers_are_those_of_transformers_for_every_adapter(case: Case) -> None:
    lengths = [len(answer) for answers in case.answers for answer in answers]
    assert min(lengths) < 8 and max(lengths) == SETTINGS.max_new_tokens
    assert len({len(prompt) for prompt in case.prompts}) > 8
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert case.answers[one] != case.answers[other]
    assert case.ask() == case.answers
    assert case.ask(max_tokens_per_batch=1) == case.answers


def test_only_the_chosen_slots_answer_in_their_order(case: Case) -> None:
    assert case.ask((2, 0)) == [case.answers[2], case.answers[1]]
    assert case.ask(prompts=[]) == [[], [], []]
    with case.peft.disable_adapter():
        prompts = case.prompts[:3]
        bare = evaluate.generate(case.peft, case.tokenizer, prompts, 3, SETTINGS.max_new_tokens)
    assert case.ask((1,), prompts=prompts) == [bare]


def test_answers_do_not_go_beyond_the_limit(case: Case) -> None:
    for limit in (1, 2, 9):
        expected = [[answer[:limit] for answer in answers] for answers in case.answers]
        assert case.ask(max_new_tokens=limit) == expected


@pytest.mark.parametrize("check_steps", [1, 3, 1000])
@pytest.mark.parametrize("slots", [(4, 0, 2), (0, 4, 4, 2, 2)])
def test_finished_rows_and_slots_leave_without_changing_the_others(
    case: Case, monkeypatch: pytest.MonkeyPatch, slots: tuple[int, ...], check_steps: int
) -> None:
    """Slot 0 ends first: two of three slots then make a smaller batch, four of five do not.

    All but two rows of slot 2 have ended by then, so that rows leave after it either way.
    """
    full = [row for row, ids in enumerate(case.answers[2]) if len(ids) == SETTINGS.max_new_tokens]
    rows = [row for row in range(12) if row not in full[2:]]
    shapes = watched_shapes(monkeypatch)
    monkeypatch.setattr(decode, "CHECK_STEPS", check_steps)
    prompts = [case.prompts[row] for row in rows]
    found = case.ask(slots, prompts=prompts, max_tokens_per_batch=len(slots) * 16 * 128)
    expected = [case.answers[SLOTS.index(slot)] for slot in slots]
    assert found == [[answers[row] for row in rows] for answers in expected]
    assert shapes[0] == (len(slots), 16)
    if check_steps < 1000:
        assert shapes[-1] == ({3: 2, 5: 5}[len(slots)], 2)
    else:
        assert set(shapes) == {shapes[0]}


@pytest.mark.parametrize(("factor", "small_bytes"), [(2, 0), (3, 0), (2, 2**30)])
def test_a_smaller_batch_is_so_much_smaller_that_its_graph_pays(
    case: Case, monkeypatch: pytest.MonkeyPatch, factor: int, small_bytes: int
) -> None:
    """As on a GPU, but that the steps are not captured."""
    steps = decode._iterate_steps
    monkeypatch.setattr(decode, "_iterate_steps", lambda batch, is_graphed: steps(batch, False))
    shapes = watched_shapes(monkeypatch)
    monkeypatch.setattr(decode, "CHECK_STEPS", 1)
    monkeypatch.setattr(decode, "SHRINK_FACTOR", factor)
    monkeypatch.setattr(decode, "SMALL_CACHE_BYTES", small_bytes)
    assert case.ask((0,), is_graphed=True) == [case.answers[SLOTS.index(0)]]
    sizes = [math.prod(shape) for shape in shapes]
    assert (len(set(sizes)) > 1) == (small_bytes == 0)
    assert all(new == old or factor * new <= old for old, new in itertools.pairwise(sizes))


def watched_shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of all decoding steps to come."""
    shapes: list[tuple[int, ...]] = []
    step: Callable[..., torch.Tensor] = SlotDecoder.step

    def watched_step(self: SlotDecoder, tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        shapes.append(tuple(tokens.shape))
        return step(self, tokens, *rest)

    monkeypatch.setattr(SlotDecoder, "step", watched_step)
    return shapes


def test_decoding_ends_when_all_rows_have_finished(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = watched_shapes(monkeypatch)
    ends = [max(map(len, answers)) for answers in zip(*case.answers, strict=True)]
    row, longest = next((row, end) for row, end in enumerate(ends) if 8 < end < 20)
    case.ask(prompts=[case.prompts[row]], max_new_tokens=200)
    assert longest <= len(shapes) < longest + decode.CHECK_STEPS


def test_prompts_read_in_shares_give_the_same_answers(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.packing.evaluation.generate.PROMPT_TOKENS", 3 * 2 * 128)
    assert case.ask() == case.answers


def test_a_cache_is_gone_before_the_next_one_is_made(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[torch.Tensor]] = []
    make_cache = SlotDecoder.make_cache

    def counted(decoder: SlotDecoder, num_rows: int, num_positions: int) -> list[KeysValues]:
        assert [one for one in made if one() is not None] == []
        cache = make_cache(decoder, num_rows, num_positions)
        made.extend(weakref.ref(tensor) for kept in cache for tensor in kept)
        return cache

    monkeypatch.setattr(SlotDecoder, "make_cache", counted)
    assert case.ask(max_tokens_per_batch=2 * len(SLOTS) * 256) == case.answers
    assert len(made) > 2 * len(case.pack.model.layers)


def test_a_layer_begins_without_what_the_one_before_made(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan of memory has room for one layer's: its projections, and gate and up."""
    made: list[weakref.ref[torch.Tensor]] = []
    apply_linears = slot_decoder._apply_linears

    def apply_watched(x_AD: torch.Tensor, *args: Any) -> torch.Tensor:
        place = len(made) % 4  # projections, back, gate and up, back
        gone = {0: made, 2: made[-2:-1]}.get(place, [])
        assert [one for one in gone if one() is not None] == []
        y_AO = apply_linears(x_AD, *args)
        made.append(weakref.ref(y_AO))
        return y_AO

    monkeypatch.setattr(slot_decoder, "_apply_linears", apply_watched)
    assert case.ask() == case.answers
    assert len(made) > 8 * len(case.pack.model.layers)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=40), st.integers(1, 4))
def test_rows_are_read_once_each_and_few_places_together(
    lengths: list[int], num_slots: int
) -> None:
    most = 1000
    examples = [Example.from_ids([1] * length, []) for length in sorted(lengths, reverse=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "PROMPT_TOKENS", most)
        found = list(generation._split_prompts(examples, num_slots))
    assert [row for rows in found for row in range(rows.start, rows.stop)] == list(
        range(len(lengths))
    )
    for rows in found:
        widest = round_up(max(len(one.input_ids) for one in examples[rows]), READ_MULTIPLE)
        count = rows.stop - rows.start
        assert count == 1 or num_slots * count * widest <= most


def test_nan_stays_in_its_slot(case: Case, tmp_path: Path) -> None:
    pack = random_pack(case.examples, tmp_path)
    next(iter(weights_of(pack, 0, ADAPTED[0][0]).values())).fill_(torch.nan)
    broken = dataclasses.replace(case, pack=pack)
    first, _, last = broken.ask()
    assert [first, last] == [case.answers[0], case.answers[2]]
    losses = broken.losses(4000)
    assert losses[1] != losses[1]
    assert losses[0] == losses[0] and losses[2] == losses[2]


def test_losses_are_those_of_peft(case: Case) -> None:
    expected = []
    for slot in SLOTS:
        case.peft.set_adapter(str(slot))
        with torch.no_grad():
            of_rows = evaluate.compute_row_losses(case.peft, case.examples, 5)
            expected.append(sum(loss for loss, _ in of_rows) / sum(num for _, num in of_rows))
    assert len({round(loss, 3) for loss in expected}) == 3
    for limit in (1, 1500, 100000):
        assert case.losses(limit) == pytest.approx(expected, rel=1e-5)


def test_losses_do_not_depend_on_the_share_of_labels(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = case.losses(4000)
    monkeypatch.setattr("trainables.packing.evaluation.generate.CHUNK_LABELS", 7)
    assert case.losses(4000) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize(("is_dequantised", "max_new_tokens"), [(True, 20), (False, 3)])
def test_scores_are_those_of_a_solo_evaluation(
    case: Case, tmp_path: Path, is_dequantised: bool, max_new_tokens: int
) -> None:
    """Targets are longer than the answers may be, or shorter."""
    ends = {len(example.target_ids) > max_new_tokens for example in case.examples}
    assert ends == ({True, False} if max_new_tokens == 20 else {True})
    settings = dataclasses.replace(SETTINGS, max_new_tokens=max_new_tokens)
    pack = random_pack(case.examples, tmp_path, is_dequantised=is_dequantised)
    losses = set()
    before = torch.get_rng_state()
    scoring = Scoring(language="english")
    evaluator = PackEvaluator(case.tokenizer, case.rows, scoring, settings, 4000, False, 0)
    found = evaluator.evaluate(pack.model, SLOTS)
    assert torch.equal(torch.get_rng_state(), before)
    for slot, scores in zip(SLOTS, found, strict=True):
        case.peft.set_adapter(str(slot))
        expected = evaluate.evaluate(case.peft, case.tokenizer, case.rows, scoring, settings)
        loss = scores.metrics.pop("eval_loss")
        assert loss == pytest.approx(expected.metrics.pop("eval_loss"), rel=1e-5)
        losses.add(round(loss, 3))
        for of_row, solo in zip(scores.row_losses, expected.row_losses, strict=True):
            assert of_row == pytest.approx(solo, rel=1e-4)
        assert dataclasses.replace(scores, row_losses=expected.row_losses) == expected
        names = ["rouge1", "rouge2", "rougeL", "rougeLsum", "exact_match", "token_f1"]
        names += ["gen_len_tokens"]
        assert list(scores.metrics) == names
    assert len(losses) == 3


SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIGS = {
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=False),
    "qwen3": Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True),
}


def random_model(name: str) -> tuple[PreTrainedModel, PackedModel]:
    """Random weights, biases and norms, and a pack of three random adapters of it."""
    set_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name])
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    model.requires_grad_(False).eval()
    adapters = Adapters(model.config, 3, 4, CPU)
    adapters.params_KP.normal_(std=0.2)
    adapters.scaling_KJ[1:] = 1.0
    return model, PackedModel(model, adapters, False, False)


@pytest.mark.parametrize("name", CONFIGS)
def test_both_families_answer_as_their_whole_forward_pass_does(name: str) -> None:
    """Slot 0's scaling is zero, so it is also transformers' bare model."""
    model, packed = random_model(name)
    prompts = [[3, 4, 5, 6], [9], [7, 8, 9]]
    found = ask(
        packed, (0, 1, 2), prompts, stop_ids=[], max_new_tokens=12, max_tokens_per_batch=500
    )
    for place, prompt in enumerate(prompts):
        rows = [[*prompt] for _ in range(3)]
        for _ in range(12):
            batch = pass_of([[Example.from_ids(row, [])] for row in rows])
            with torch.no_grad():
                logits_NV = packed.logits(packed.embed(batch), batch)
            last_K = batch.rows.bounds_S1[1:].long() - 1
            for row, token in zip(rows, logits_NV[last_K].argmax(dim=-1).tolist(), strict=True):
                row.append(token)
        assert [answers[place] for answers in found] == [row[len(prompt) :] for row in rows]
        bare = model.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=12, pad_token_id=0
        )
        assert found[0][place] == bare[0, len(prompt) :].tolist()
    assert found[0] != found[1] != found[2]


@max_examples(15)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=7),
    limit=st.integers(1, 2000),
    stops=st.lists(st.integers(0, 49), max_size=12),
    seed=st.integers(0, 99),
)
def test_batching_does_not_change_the_answers(
    lengths: list[int], limit: int, stops: list[int], seed: int
) -> None:
    _, packed = random_model("qwen3")
    generator = torch.Generator().manual_seed(seed)
    prompts = [torch.randint(0, 50, (n,), generator=generator).tolist() for n in lengths]

    def answers(prompts: list[list[int]], limit: int) -> list[list[list[int]]]:
        return ask(
            packed, (2, 0), prompts, stop_ids=stops, max_new_tokens=11, max_tokens_per_batch=limit
        )

    alone = [answers([prompt], 1) for prompt in prompts]
    assert answers(prompts, limit) == [[each[slot][0] for each in alone] for slot in range(2)]


@given(
    lengths=st.lists(st.integers(1, 300), max_size=30),
    num_slots=st.integers(1, 9),
    limit=st.integers(1, 20000),
    state_positions=st.sampled_from((0, 1, 1500)),
    most_read=st.none() | st.integers(1, 20000),
)
def test_batches_hold_every_row_once_within_the_limits(
    lengths: list[int], num_slots: int, limit: int, state_positions: int, most_read: int | None
) -> None:
    found = list(group_rows(lengths, num_slots, limit, state_positions, most_read))
    order = [place for batch in found for place in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[place] for place in order] == sorted(lengths, reverse=True)
    for number, batch in enumerate(found):
        padded = 1 << (len(batch) - 1).bit_length()
        assert padded == len(batch) or number == len(found) - 1
        num_positions = -(-lengths[batch[0]] // 64) * 64
        num_rows = num_slots * padded
        assert padded == 1 or num_rows * (num_positions + state_positions) <= limit
        assert padded == 1 or most_read is None or num_rows * num_positions <= most_read


@pytest.mark.gpu
def test_captured_steps_give_the_same_answers(case: Case) -> None:
    assert case.ask(is_graphed=True) == case.ask()
