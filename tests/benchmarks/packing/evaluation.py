"""python -m tests.benchmarks.packing.evaluation: adapters scored at once, beside one after another.

Both sides tokenise the prompts, answer greedily, decode the text and count ROUGE. Random weights
never end an answer, so every row has as many new tokens as it may.
"""

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from tests.benchmarks.packing.process import make_random_model, run_in_own_process
from tests.benchmarks.packing.results import describe_args, read_commit
from tests.benchmarks.packing.shapes import check_shape
from tests.trainables.prepared import prepare_rows
from trainables.config import Hyperparameters, TrainingSettings, TrialConfig
from trainables.data.prepared_rows import read_rows
from trainables.data.rows import Row, Scoring
from trainables.errors import SweepAborted

if TYPE_CHECKING:  # load torch, which --help can do without
    from trainables.packing.compute.pack import Pack
    from trainables.packing.sizing.capacity import Capacity

WEIGHT_SIZE = 0.02
"""Standard deviation of the adapters' weights, so that their answers differ."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Times the evaluation of many adapters on the validation rows of SAMSum."""

    model_config: Path
    """Name of a shape in shapes.py, or folder with a config.json; the weights are random."""
    tokenizer: Path
    """Folder with its tokenizer."""
    data: Path
    """Folder with SAMSum's train, validation and test files."""
    out: Path
    """JSON file for the figures."""
    num_adapters: int = 16
    """Adapters that are scored."""
    num_rows: int = 818
    """Dialogues, from all three splits where validation has fewer."""
    max_new_tokens: int = 64
    """Tokens of every answer."""
    solo_batch_size: int = 64
    """Prompts that transformers answers together."""
    solo_adapters: int = 1
    """Adapters that transformers scores; its time is multiplied to num_adapters. 0 leaves
    transformers out."""
    lora_rank: int = 16
    """Rank of every adapter."""
    compute_dtype: tyro.conf.Suppress[Any] = "bfloat16"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one side, for the adapters that it scored."""

    num_adapters: int
    tokenise_s: float
    answer_s: float
    """Reading the prompts and decoding; the pack's also reads the targets for their loss."""
    rouge_s: float
    """Text and ROUGE; the pack's is estimated from one adapter's."""
    peak_gib: float
    new_tokens: int
    predicted_gib: float | None = None
    """Peak memory of a pack that only answers, predicted for a GPU."""

    @property
    def total_s(self) -> float:
        return self.tokenise_s + self.answer_s + self.rouge_s


def main() -> None:
    """Measures both sides, each in a process of its own."""
    args = tyro.cli(Args, prog="python -m tests.benchmarks.packing.evaluation")
    try:
        figures = measure_sides(args)
    except SweepAborted as refused:
        print(refused, file=sys.stderr)
        sys.exit(2)
    args.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


def measure_sides(args: Args) -> dict[str, Any]:
    """The figures.

    Raises:
        SweepAborted: there is no such shape, or the adapters do not fit.
    """
    check_shape(args.model_config)
    with (
        make_random_model(args.model_config, args.tokenizer) as model,
        tempfile.TemporaryDirectory() as name,
    ):
        settings = _make_settings(args, model)
        first, again = run_in_own_process(time_pack, args, settings, Path(name))
        solo = None
        if args.solo_adapters:
            solo = run_in_own_process(time_solo, args, settings, Path(name))
    return make_figures(args, run_in_own_process(_name_gpu), first, again, solo)


def make_figures(
    args: Args, gpu: str, first: Timing, again: Timing, solo: Timing | None
) -> dict[str, Any]:
    """What the file says; nothing of transformers where it was left out."""
    figures: dict[str, Any] = {
        "gpu": gpu,
        "commit": read_commit(),
        "settings": describe_args(args),
        "pack": asdict(again) | {"total_s": again.total_s, "first_total_s": first.total_s},
    }
    if solo is None:
        return figures
    solo_s = solo.total_s * args.num_adapters / solo.num_adapters
    return figures | {
        "transformers": asdict(solo) | {"total_s": solo.total_s, "all_adapters_s": solo_s},
        "times_faster": solo_s / again.total_s,
    }


def time_pack(args: Args, settings: TrainingSettings, folder: Path) -> tuple[Timing, Timing]:
    """The pack's first evaluation, which makes kernels, and one after it."""
    pack, capacity = _make_pack(args, settings, folder)
    first, again = (_time_evaluation(args, settings, pack, capacity) for _ in range(2))
    return first, again


def time_solo(args: Args, settings: TrainingSettings, folder: Path) -> Timing:
    """Stock PEFT over NF4, after a few rows to warm up."""
    from peft import PeftModel

    from trainables.metrics.score_answers import score_answers
    from trainables.models.base_model import autocast, load_base, load_tokenizer
    from trainables.models.memory import measure_peak_gib, reset_peak
    from trainables.solo.evaluate import generate, inference

    tokenizer = load_tokenizer(settings.model)
    base = load_base(settings.model, settings.compute_dtype)
    model = PeftModel.from_pretrained(base, str(folder / "0"))
    for number in range(1, args.solo_adapters):
        model.load_adapter(str(folder / str(number)), adapter_name=str(number))
    rows, scoring = _read_some_rows(args, settings)
    reset_peak()
    tokenise_s = answer_s = rouge_s = 0.0
    with inference(model), autocast(settings.compute_dtype):
        warm = [one.prompt_ids for one in _encode_prompts(settings, tokenizer, rows[:4])]
        generate(model, tokenizer, warm, args.solo_batch_size, 4)
        for number in range(args.solo_adapters):
            model.set_adapter("default" if number == 0 else str(number))
            started_s = time.perf_counter()
            prompts = [one.prompt_ids for one in _encode_prompts(settings, tokenizer, rows)]
            tokenised_s = time.perf_counter()
            answers = generate(model, tokenizer, prompts, args.solo_batch_size, args.max_new_tokens)
            answered_s = time.perf_counter()
            score_answers(tokenizer, answers, rows, scoring, thinking=False)
            tokenise_s += tokenised_s - started_s
            answer_s += answered_s - tokenised_s
            rouge_s += time.perf_counter() - answered_s
    return Timing(
        num_adapters=args.solo_adapters,
        tokenise_s=tokenise_s,
        answer_s=answer_s,
        rouge_s=rouge_s,
        peak_gib=measure_peak_gib(),
        new_tokens=sum(map(len, answers)),
    )


def _make_pack(args: Args, settings: TrainingSettings, folder: Path) -> tuple["Pack", "Capacity"]:
    """Adapters of random weights in all slots, also saved."""
    import torch

    from tests.benchmarks.packing.job import read_training_examples
    from trainables.models.memory import get_gpu_gib
    from trainables.models.model_facts import read_model_facts
    from trainables.packing.service.loading import make_pack
    from trainables.packing.sizing.choose import choose_capacity

    facts = read_model_facts(settings.model)
    capacity = choose_capacity(facts, settings, args.lora_rank, get_gpu_gib(), args.num_adapters)
    if capacity.num_slots < args.num_adapters:
        raise SweepAborted(
            f"{args.num_adapters} adapters do not fit; {capacity.num_slots} do",
            f"--num-adapters {capacity.num_slots}",
        )
    pack = make_pack(settings, capacity)
    examples = read_training_examples(settings)[:8]
    params = Hyperparameters(lora_rank=args.lora_rank, lora_alpha=16.0, learning_rate=1e-4)
    generator = torch.Generator(pack.adapters.params_KP.device).manual_seed(0)
    for slot in range(args.num_adapters):
        name = str(slot)
        trial = TrialConfig(trial_id=name, params=params, settings=settings, folder=folder / name)
        pack.join(slot, trial, examples)
        pack.adapters.params_KP[slot].normal_(std=WEIGHT_SIZE, generator=generator)
        pack.save(slot, folder / name)
    return pack, capacity


def _time_evaluation(
    args: Args, settings: TrainingSettings, pack: "Pack", capacity: "Capacity"
) -> Timing:
    """As a sweep scores its slots: a cache that does not fit is halved."""
    import torch

    from trainables.metrics.score_answers import score_answers
    from trainables.models.base_model import get_device, load_tokenizer
    from trainables.models.memory import free_memory, measure_peak_gib, reset_peak
    from trainables.models.model_facts import read_model_facts
    from trainables.packing.evaluation.evaluator import PackEvaluator
    from trainables.packing.sizing.memory_model import predict_pack

    tokenizer = load_tokenizer(settings.model)
    rows, scoring = _read_some_rows(args, settings)
    reset_peak()
    started_s = time.perf_counter()
    evaluator = PackEvaluator(
        tokenizer,
        rows,
        scoring,
        settings,
        capacity.eval_tokens,
        is_graphed=get_device().type == "cuda",
        state_positions=pack.model.state_positions,
    )
    tokenised_s = time.perf_counter()
    while True:
        try:
            results = evaluator.evaluate(pack.model, range(args.num_adapters))
            break
        except torch.OutOfMemoryError:
            free_memory()
            if not evaluator.use_less_memory():
                raise
    scored_s = time.perf_counter()
    predicted = predict_pack(read_model_facts(settings.model), settings, capacity)
    said = [[1] * args.max_new_tokens for _ in rows]
    score_answers(tokenizer, said, rows, scoring, thinking=False)
    rouge_s = (time.perf_counter() - scored_s) * args.num_adapters
    return Timing(
        num_adapters=args.num_adapters,
        tokenise_s=tokenised_s - started_s,
        answer_s=scored_s - tokenised_s - rouge_s,
        rouge_s=rouge_s,
        peak_gib=measure_peak_gib(),
        predicted_gib=(predicted.shared + predicted.evaluation) / 2**30,
        new_tokens=round(sum(one.metrics["gen_len_tokens"] for one in results) * len(rows)),
    )


def _make_settings(args: Args, model: Path) -> TrainingSettings:
    return TrainingSettings(
        rows_dir=prepare_rows(model, args.data),
        model=str(model),
        max_steps=1,
        rungs=(1,),
        eval_rows=args.num_rows,
        max_new_tokens=args.max_new_tokens,
        eval_batch_size=args.solo_batch_size,
        compute_dtype=args.compute_dtype,
    )


def _read_some_rows(args: Args, settings: TrainingSettings) -> tuple[list[Row], Scoring]:
    splits = read_rows(settings.rows_dir)
    rows = [*splits.validation, *splits.test, *splits.train]
    return rows[: args.num_rows], splits.scoring


def _encode_prompts(settings: TrainingSettings, tokenizer: Any, rows: list[Row]) -> list[Any]:
    from trainables.data.tokens import compute_prompt_limit, encode_rows

    limit = compute_prompt_limit(settings.max_length_tokens, settings.max_new_tokens)
    return encode_rows(tokenizer, rows, limit)


def _name_gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    main()
