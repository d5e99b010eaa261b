"""python -m trainables.packing.bench: packs beside TRL's SFTTrainer, on real row lengths."""

import json
import multiprocessing
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import tyro

from trainables.config import Hyperparameters, TrainingSettings, TrialConfig, TrialReport
from trainables.model_facts import read_model_facts

Result = TypeVar("Result")

NUM_WARM_UP_STEPS = 20
"""Steps of the solo run before its clock starts."""


@dataclass(frozen=True, kw_only=True)
class BenchArgs:
    """Times solo trials and packs on one GPU, over the same rows, and writes a JSON file."""

    model_config: Path
    """Folder with the config.json of the shape; the weights are random."""
    tokenizer: Path
    """Folder of the tokenizer that gives the rows their lengths."""
    data: Path
    """Folder with SAMSum's train, validation and test files."""
    slots: tuple[int, ...] = (1, 8, 32)
    """Trials of a pack; one row of the table each."""
    batch_size: int = 2
    """Rows in one optimizer step of a trial."""
    lora_ranks: tuple[int, ...] = (16,)
    """Ranks of the trials, in turn."""
    lora_dropout: float = 0.05
    """Dropout of every trial."""
    num_steps: int = 60
    """Steps that are timed."""
    out: Path
    """JSON file to write."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement."""

    name: str
    slots: int
    trial_steps_per_s: float
    """Optimizer steps a second, summed over the trials."""
    real_tokens_per_s: float
    """Tokens that are not padding, summed over the trials."""
    tflops: float
    """4 x parameters of the linear layers x real tokens a second, in TFLOP/s."""
    peak_gib: float
    """Most memory that torch held on the GPU."""
    first_step_s: float
    """From the start of the process's work to the end of its first step; compiling included."""


def main() -> None:
    """Measures every row in a process of its own and writes them all."""
    args = tyro.cli(BenchArgs, prog="python -m trainables.packing.bench")
    with _random_model(args) as model:
        jobs: list[tuple[Callable[..., Row], int]] = [(_solo, 1)]
        jobs += [(_pack, num_slots) for num_slots in args.slots]
        rows = [_in_own_process(job, args, model, num_slots) for job, num_slots in jobs]
        gpu = _in_own_process(_gpu)
    solo = rows[0].trial_steps_per_s
    for row in rows:
        print(
            f"{row.name:<10} {row.slots:>3} slots {row.trial_steps_per_s:9.2f} trial-steps/s "
            f"({row.trial_steps_per_s / solo:6.1f}x) {row.real_tokens_per_s:10,.0f} tokens/s "
            f"{row.tflops:6.1f} TFLOP/s ({row.tflops / gpu.ceiling_tflops:.0%}) "
            f"{row.peak_gib:6.1f} GiB, first step after {row.first_step_s:.0f} s"
        )
    settings = {name: _shown(value) for name, value in asdict(args).items()}
    measured = [asdict(row) for row in rows]
    found = {"gpu": asdict(gpu), "commit": _commit(), "settings": settings, "rows": measured}
    args.out.write_text(json.dumps(found, indent=2) + "\n")


def _in_own_process(job: Callable[..., Result], *args: object) -> Result:
    """The job's result; its GPU memory and compiled graphs end with its process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(job, *args).result()


@contextmanager
def _random_model(args: BenchArgs) -> Iterator[Path]:
    """A folder with a model of the shape."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _in_own_process(_save_random_model, args.model_config, folder)
        for file in args.tokenizer.iterdir():
            shutil.copy(file, folder)
        yield folder


def _save_random_model(model_config: Path, folder: Path) -> None:
    import torch  # loads torch, in a process that gives its GPU memory back
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model_config)
    with torch.device("cuda"):  # billions of random numbers take minutes on a CPU
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)


def _settings(args: BenchArgs, model: Path, num_steps: int) -> TrainingSettings:
    return TrainingSettings(
        task="samsum", data=str(args.data), model=str(model), max_steps=num_steps,
        rungs=(num_steps,) if num_steps <= NUM_WARM_UP_STEPS else (NUM_WARM_UP_STEPS, num_steps),
        batch_size=args.batch_size, micro_batch_size=args.batch_size,
        eval_rows=2, max_new_tokens=2,
    )  # fmt: skip


def _trial(args: BenchArgs, settings: TrainingSettings, number: int, folder: Path) -> TrialConfig:
    rank = args.lora_ranks[number % len(args.lora_ranks)]
    params = Hyperparameters(
        lora_rank=rank, lora_alpha=2 * rank, lora_dropout=args.lora_dropout, learning_rate=1e-4
    )
    return TrialConfig(trial_id=f"t{number:04d}", params=params, settings=settings, folder=folder)


def _solo(args: BenchArgs, model: Path, num_slots: int) -> Row:
    """TRL's SFTTrainer, one trial; evaluation and checkpoints are outside its clock."""
    from trainables import solo  # loads torch, in the process that measures

    started_s = time.perf_counter()
    reports: list[TrialReport] = []
    settings = _settings(args, model, NUM_WARM_UP_STEPS + args.num_steps)
    with tempfile.TemporaryDirectory() as folder:
        solo.train(_trial(args, settings, 0, Path(folder)), reports.append)
    first, last = reports
    seconds = (last.tokens - first.tokens) / last.tokens_per_s
    return _row("TRL solo", 1, args.num_steps, last.tokens - first.tokens, seconds, model,
                last.peak_gib, time.perf_counter() - started_s - seconds)  # fmt: skip


def _pack(args: BenchArgs, model: Path, num_slots: int) -> Row:
    """A compiled pack: a first round compiles every shape, a second over the same rows counts."""
    import torch  # loads torch, in the process that measures

    from trainables.base_model import load_base, load_tokenizer
    from trainables.examples import encode_training_rows
    from trainables.packing.batch import Course
    from trainables.packing.pack import Pack
    from trainables.tasks import TASKS

    started_s = time.perf_counter()
    settings = _settings(args, model, args.num_steps)
    train = TASKS["samsum"].load(settings.data).train
    tokenizer = load_tokenizer(str(model))
    examples = encode_training_rows(
        tokenizer, train, settings.max_length_tokens, settings.max_new_tokens
    )
    base = load_base(str(model), settings.compute_dtype)
    pack = Pack(base, num_slots, max(args.lora_ranks), args.batch_size, is_compiled=True)
    tokens = num_slots * Course(examples, settings, 0).tokens(args.num_steps)
    first_step_s = seconds = 0.0
    for _ in ("compile", "count"):
        for slot in range(num_slots):
            pack.join(slot, _trial(args, settings, slot, Path()), examples, offset=0)
        torch.cuda.synchronize()
        round_s = time.perf_counter()
        while pack.step():
            first_step_s = first_step_s or time.perf_counter() - started_s
        torch.cuda.synchronize()
        seconds = time.perf_counter() - round_s
        for slot in range(num_slots):
            pack.leave(slot)
    peak_gib = torch.cuda.max_memory_allocated() / 2**30
    num_steps = num_slots * args.num_steps
    return _row("pack", num_slots, num_steps, tokens, seconds, model, peak_gib, first_step_s)


def _row(
    name: str, slots: int, num_steps: int, tokens: int, seconds: float, model: Path,
    peak_gib: float, first_step_s: float,
) -> Row:  # fmt: skip
    body_params = read_model_facts(str(model)).body_params
    return Row(
        name=name, slots=slots, trial_steps_per_s=num_steps / seconds,
        real_tokens_per_s=tokens / seconds, tflops=4 * body_params * tokens / seconds / 1e12,
        peak_gib=peak_gib, first_step_s=first_step_s,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The card that was measured."""

    name: str
    torch: str
    ceiling_tflops: float
    """Its rate of large bf16 matrix products on random values, in TFLOP/s."""


def _gpu() -> Gpu:
    import torch  # loads torch, in the process that measures

    size, repeats = 8192, 20
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    started_s = time.perf_counter()
    for _ in range(repeats):
        a @ b
    torch.cuda.synchronize()
    tflops = repeats * 2 * size**3 / (time.perf_counter() - started_s) / 1e12
    name = torch.cuda.get_device_name()
    return Gpu(name=name, torch=torch.__version__, ceiling_tflops=tflops)


def _shown(value: object) -> object:
    """A folder by its name: where it lay tells nobody anything."""
    return value.name if isinstance(value, Path) else value


def _commit() -> str | None:
    """The checkout's commit; None outside git."""
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return found.stdout.strip() if found.returncode == 0 else None


if __name__ == "__main__":
    main()
