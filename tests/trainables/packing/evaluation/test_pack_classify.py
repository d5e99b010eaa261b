"""Likelihoods of labels: packed against transformers on stock PEFT, and against plain sums."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from peft import PeftModel

from tests.examples import max_examples
from tests.trainables.packing.small_packs import make_pack, trial_of, weights_of
from trainables.config import Hyperparameters, TrainingSettings
from trainables.data.rows import Row, Scoring, select_rung_rows
from trainables.data.tokens import Example, encode_rows
from trainables.metrics.label_tree import LabelTree
from trainables.models.base_model import load_base, load_tokenizer
from trainables.packing.compute.pack import Pack
from trainables.packing.evaluation.classify import compute_label_log_probs
from trainables.packing.evaluation.evaluator import PackEvaluator
from trainables.packing.evaluation.slot_decoder import KeysValues, SlotDecoder
from trainables.solo import evaluate

SLOTS = (2, 0)
KINDS = {
    2: Hyperparameters(lora_rank=2, lora_alpha=4, learning_rate=1e-3),
    0: Hyperparameters(lora_rank=8, lora_alpha=4, learning_rate=1e-3, use_rslora=True),
}
LABELS = ("good", "good morning", "bad", "so so, not good")
SCORING = Scoring(kind="classify", labels=LABELS)
ROWS = [
    Row(id=str(place), prompt=f"How is it? {'well ' * (place % 5)}{place}", target=target)
    for place, target in enumerate([LABELS[number % 4] for number in range(11)])
]


@dataclasses.dataclass
class Case:
    """A pack of three slots and its two adapters in PEFT."""

    pack: Pack
    peft: PeftModel


@pytest.fixture(scope="module")
def case(model_dir: str, rows_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("adapters")
    settings = settings_of(model_dir, rows_dir)
    examples = encode_rows(load_tokenizer(model_dir), ROWS, 100)
    pack = make_pack(settings, 3)
    torch.manual_seed(5)
    for slot, params in KINDS.items():
        pack.join(slot, trial_of(str(slot), params, settings), examples)
        for weights in weights_of(pack, slot, params).values():
            weights.normal_(std=0.1)
        pack.save(slot, folder / str(slot))
    base = load_base(model_dir, "float32")
    peft = PeftModel.from_pretrained(base, str(folder / "2"), adapter_name="2")
    peft.load_adapter(str(folder / "0"), adapter_name="0")
    return Case(pack, peft)


def settings_of(model_dir: str, rows_dir: Path) -> TrainingSettings:
    return TrainingSettings(
        rows_dir=rows_dir,
        model=model_dir,
        max_steps=1,
        rungs=(1,),
        max_length_tokens=128,
        eval_batch_size=3,
        max_new_tokens=8,
        compute_dtype="float32",
    )


def by_sums(model: PeftModel, prompt: list[int], label: list[int]) -> float:
    """The log-probability of one label after one prompt, token by token."""
    ids = torch.tensor([prompt + label])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0].double()
    log_probs = logits.log_softmax(dim=-1)
    return sum(
        float(log_probs[len(prompt) - 1 + place, token]) for place, token in enumerate(label)
    )


ids_of = st.lists(st.integers(5, 8), min_size=1, max_size=5)  # few tokens: labels share beginnings
prompts_of = st.lists(st.integers(5, 200), min_size=1, max_size=40)


@max_examples(15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompts=st.lists(
        st.lists(st.integers(5, 200), min_size=1, max_size=40), min_size=1, max_size=4
    ),
    stem=ids_of,
    others=st.lists(ids_of, max_size=6),
    max_tokens=st.sampled_from([1, 300, 100_000]),
)
def test_packed_log_probs_are_those_of_each_label_alone(
    case: Case,
    prompts: list[list[int]],
    stem: list[int],
    others: list[list[int]],
    max_tokens: int,
) -> None:
    """Labels of different lengths, some the beginnings of others, some a single token."""
    labels = [[*stem, 1], [*stem, 7, 1], *others]
    decoder = SlotDecoder.from_slots(case.pack.model, SLOTS)
    found = compute_label_log_probs(decoder, prompts, labels, max_tokens)
    for place, slot in enumerate(SLOTS):
        case.peft.set_adapter(str(slot))
        expected = torch.tensor(
            [[by_sums(case.peft, prompt, label) for label in labels] for prompt in prompts],
            dtype=torch.float64,
        )
        with torch.no_grad():
            by_rows = evaluate.compute_label_log_probs(case.peft, prompts, labels, 2)
        torch.testing.assert_close(found[place], expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(by_rows, expected, rtol=1e-5, atol=1e-5)


def test_labels_of_one_token_take_no_pass_of_their_own(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = SlotDecoder.from_slots(case.pack.model, SLOTS)
    monkeypatch.setattr(SlotDecoder, "read_tree", None)
    prompts, labels = [[5, 6, 7], [9]], [[5], [8], [1]]
    found = compute_label_log_probs(decoder, prompts, labels, 1000)
    case.peft.set_adapter(str(SLOTS[1]))
    expected = [[by_sums(case.peft, prompt, label) for label in labels] for prompt in prompts]
    torch.testing.assert_close(found[1], torch.tensor(expected).double(), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        by_rows = evaluate.compute_label_log_probs(case.peft, prompts, labels, 2)
    torch.testing.assert_close(by_rows, found[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("max_tokens", [400, 1600, 100_000])
def test_a_thousand_labels_stay_within_the_cache(
    case: Case, max_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = SlotDecoder.from_slots(case.pack.model, SLOTS)
    labels = [[5 + n % 10, 5 + n // 10, *[9] * (n % 6), 1] for n in range(1000)]
    passes, sizes = [], []
    make_cache, read_tree = SlotDecoder.make_cache, SlotDecoder.read_tree

    def count_cache(self: SlotDecoder, num_rows: int, num_positions: int) -> list[KeysValues]:
        sizes.append(self.num_slots * num_rows * num_positions)
        return make_cache(self, num_rows, num_positions)

    def count_passes(self: SlotDecoder, tree: LabelTree, *rest: Any) -> torch.Tensor:
        passes.append(len(tree.tokens_N))
        return read_tree(self, tree, *rest)

    monkeypatch.setattr(SlotDecoder, "make_cache", count_cache)
    monkeypatch.setattr(SlotDecoder, "read_tree", count_passes)
    prompts = [[7] * n for n in (3, 20, 40)]
    found = compute_label_log_probs(decoder, prompts, labels, max_tokens)
    assert max(sizes) <= max_tokens
    assert len(sizes) <= len(passes) <= len(sizes) * (1000 // 20)
    case.peft.set_adapter(str(SLOTS[1]))
    for row, column in ((0, 0), (1, 517), (2, 999)):
        expected = by_sums(case.peft, prompts[row], labels[column])
        assert found[1, row, column].item() == pytest.approx(expected, rel=1e-5)


def test_slots_are_scored_as_transformers_scores_each(
    case: Case, model_dir: str, rows_dir: Path
) -> None:
    settings = settings_of(model_dir, rows_dir)
    tokenizer = load_tokenizer(model_dir)
    evaluator = PackEvaluator(tokenizer, ROWS, SCORING, settings, 500, False, 0)
    found = evaluator.evaluate(case.pack.model, SLOTS)
    for slot, scores in zip(SLOTS, found, strict=True):
        case.peft.set_adapter(str(slot))
        expected = evaluate.evaluate(case.peft, tokenizer, ROWS, SCORING, settings)
        names = {"accuracy", "macro_f1", "mcc", "eval_loss"}
        assert names <= scores.metrics.keys() == expected.metrics.keys()
        assert scores.metrics == pytest.approx(expected.metrics, rel=1e-4)
        assert scores.answers == expected.answers
        assert scores.row_scores == expected.row_scores
        for own, other in zip(scores.probabilities, expected.probabilities, strict=True):
            assert own == pytest.approx(other, rel=1e-5, abs=2e-6) and len(own) == len(LABELS)


def test_lower_rungs_score_a_smaller_slice_of_the_same_rows(model_dir: str, rows_dir: Path) -> None:
    settings = dataclasses.replace(
        settings_of(model_dir, rows_dir), max_steps=9, rungs=(3, 9), eval_rows=6
    )
    assert select_rung_rows(ROWS, settings, 3) == select_rung_rows(ROWS, settings, 9)
    settings = dataclasses.replace(settings, low_rung_eval_rows=2)
    low, last = (select_rung_rows(ROWS, settings, step) for step in (3, 9))
    assert (len(low), len(last)) == (2, 6)
    assert last[:2] == low
    more = dataclasses.replace(settings, low_rung_eval_rows=50)
    assert len(select_rung_rows(ROWS, more, 3)) == 6


def test_examples_for_a_thinking_model_leave_its_thought_open(model_dir: str) -> None:
    tokenizer = load_tokenizer(model_dir)
    example: Example
    texts = []
    for thinking in (False, True):
        (example,) = encode_rows(tokenizer, ROWS[:1], 100, thinking=thinking)
        texts.append(tokenizer.decode(example.prompt_ids))
    assert texts[0].endswith("</think>\n\n") and "</think>" not in texts[1]
