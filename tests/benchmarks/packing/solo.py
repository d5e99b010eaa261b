"""The bench's measurements of TRL's SFTTrainer: alone, sharing the GPU, and with fast settings."""

import importlib
import importlib.util
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any

from transformers import (
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from tests.benchmarks.packing.job import Job, read_training_examples, synchronize
from tests.benchmarks.packing.results import SOLO, Row
from trainables.config import TrialConfig, TrialReport
from trainables.data.batches import Batches
from trainables.models.base_model import get_device, load_base, load_tokenizer
from trainables.models.model_facts import read_model_facts
from trainables.solo.trainer import add_adapter, train

BARRIER_TIMEOUT_S = 300.0
"""Longest wait of a process for the others to be warm."""
RATES = ("trial_steps_per_s", "real_tokens_per_s", "tflops", "products_tflops")
"""What processes that share a GPU add up to."""
NUM_LOADERS = 2
"""Processes that lay out batches, where TRL is at its fastest."""
FAST_SETTINGS: dict[str, dict[str, Any]] = {
    "padded": {},
    "padding-free": {"padding_free": True},
    "padding-free, compiled": {"padding_free": True, "torch_compile": True},
}
"""What TRL offers for speed; which is fastest depends on the shape."""


def measure_solo(job: Job, when_warm: Callable[[], object] = lambda: None) -> Row:
    """TRL's SFTTrainer, one trial; evaluation and checkpoints are outside its clock."""
    settings = f"as sweeps train it{_name_delta_kernels(job)}"
    reports: list[TrialReport] = []
    arrived_s: list[float] = []

    def take(report: TrialReport) -> None:
        reports.append(report)
        arrived_s.append(time.perf_counter())
        if report.step == job.num_warm_up_steps:
            when_warm()

    with tempfile.TemporaryDirectory() as folder:
        train(job.make_trial(0, Path(folder)), take)
    _, warm, last = reports
    return job.make_row(
        Batches(read_training_examples(job.settings), job.settings),
        name=SOLO,
        settings=settings,
        steps=job.num_steps,
        seconds=(last.tokens - warm.tokens) / last.tokens_per_s,
        startup_s=arrived_s[0] - job.started_s,
    )


def _name_delta_kernels(job: Job) -> str:
    """What transformers computes a hybrid's Gated DeltaNet with, for the row's settings."""
    if not read_model_facts(job.settings.model).is_hybrid:
        return ""
    if get_device().type == "cpu" or importlib.util.find_spec("fla") is None:
        return ", Gated DeltaNet by torch"
    return f", flash-linear-attention {importlib.import_module('fla').__version__}"


def measure_shared(job: Job) -> Row:
    """As many solo processes on one GPU as the job has trials, timed once all are warm.

    All begin at once and have the same work; each one's rate is its own, which is in their favour
    where one ends before the others.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(job.num_trials, timeout=BARRIER_TIMEOUT_S)
    with ProcessPoolExecutor(
        job.num_trials, mp_context=context, initializer=_set_barrier, initargs=(barrier,)
    ) as pool:
        futures = [pool.submit(_measure_with_others, job) for _ in range(job.num_trials)]
        failures = [f.exception() for f in futures if f.exception() is not None]
        for failure in sorted(failures, key=lambda f: isinstance(f, BrokenBarrierError)):
            assert failure is not None
            raise failure
        rows = [future.result() for future in futures]
    totals = {
        name: sum(getattr(row, name) for row in rows)
        for name in (*RATES, "peak_gib", "reserved_gib")
    }
    return replace(
        rows[0],
        name=f"{job.num_trials} solo processes",
        num_trials=job.num_trials,
        timed_s=max(row.timed_s for row in rows),
        startup_s=max(row.startup_s for row in rows),
        **totals,
    )


_barrier: Any = None
"""Where this process waits for the others, if it has others."""


def _set_barrier(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _measure_with_others(job: Job) -> Row:
    """A solo row that begins with the others', or fails with the others."""
    try:
        return measure_solo(job, when_warm=_barrier.wait)
    except BaseException:
        _barrier.abort()
        raise


def measure_fast(job: Job, how: str) -> Row:
    """TRL with settings for speed: bf16 adapters, fused AdamW, no logs, workers that load rows.

    TRL computes the head's loss in chunks by itself. Its packing is left out, because it would
    change which rows a step has. Unsloth 2026.10 asks for a TRL below 1.16, and so is left out.
    """
    has_liger = importlib.util.find_spec("liger_kernel") is not None
    chosen = {**FAST_SETTINGS[how], "use_liger_kernel": has_liger}
    clock = _Clock(job.num_warm_up_steps)
    settings = job.settings
    base = load_base(settings.model, settings.compute_dtype)
    batches = Batches(read_training_examples(settings), settings)
    with tempfile.TemporaryDirectory() as folder:
        trial = job.make_trial(0, Path(folder))
        trainer = SFTTrainer(
            model=add_adapter(base, trial.params, settings.seed),
            args=_make_fast_arguments(trial, chosen),
            train_dataset=batches.make_dataset(),
            processing_class=load_tokenizer(settings.model),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    liger = "with Liger" if has_liger else "without Liger, which is not installed"
    return job.make_row(
        batches,
        name="TRL fast",
        settings=f"{how}, {liger}{_name_delta_kernels(job)}",
        steps=job.num_steps,
        seconds=clock.end_s - clock.warm_s,
        startup_s=clock.first_s - job.started_s,
    )


class _Clock(TrainerCallback):  # type: ignore[misc]
    """When the first step, the warm-up and the last step ended."""

    def __init__(self, num_warm_up_steps: int) -> None:
        self._num_warm_up_steps = num_warm_up_steps
        self.first_s = self.warm_s = self.end_s = 0.0

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Look at the clock once the GPU has done the step."""
        if state.global_step not in (1, self._num_warm_up_steps, state.max_steps):
            return
        synchronize()
        now_s = time.perf_counter()
        self.first_s = self.first_s or now_s
        if state.global_step == self._num_warm_up_steps:
            self.warm_s = now_s
        self.end_s = now_s


def _make_fast_arguments(trial: TrialConfig, chosen: dict[str, Any]) -> SFTConfig:
    settings = trial.settings
    return SFTConfig(
        output_dir=str(trial.folder),
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=trial.params.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup_steps,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=settings.compute_dtype == "bfloat16",
        use_cpu=get_device().type == "cpu",
        gradient_checkpointing=False,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        dataloader_num_workers=NUM_LOADERS,
        dataloader_pin_memory=get_device().type == "cuda",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        report_to="none",
        **chosen,
    )
