"""One trial alone: TRL's SFTTrainer on stock PEFT over a frozen base; what a pack must equal."""

import dataclasses
import time
from collections.abc import Callable
from functools import partial

from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel, PrinterCallback, set_seed
from trl import SFTConfig, SFTTrainer

from trainables.checkpoint import (
    SOLO_STATE_NAMES,
    delete_incomplete,
    find_resume_point,
    prune_to_adapter,
    read_last_report,
    read_progress,
)
from trainables.checkpoint_storage import fetch_last, prune
from trainables.config import Hyperparameters, TrialConfig, TrialReport
from trainables.data.batches import Batches
from trainables.data.prepared_rows import fetch_rows, read_rows
from trainables.data.rows import select_rung_rows
from trainables.data.tokens import encode_training_rows
from trainables.models.base_model import get_device, load_base, load_tokenizer, make_lora_config
from trainables.models.memory import reset_peak, retry_with_smaller_micro_batch
from trainables.models.model_facts import parse_facts
from trainables.solo.evaluate import evaluate
from trainables.solo.rung_callback import RungReportCallback


def train(
    config: TrialConfig, report: Callable[[TrialReport], None], *, dropout_seed: int | None = None
) -> None:
    """Train one trial to its end, reporting at every rung.

    A trial that has a checkpoint goes on from it: its last report is sent again, and the losses
    that follow are those of an undisturbed run. It starts anew if prune_to_adapter has taken the
    state that it would need. report may raise SystemExit to stop the trial.
    When the GPU runs out of memory the micro-batch is halved and training goes on from the last
    checkpoint; the effective batch stays.

    Args:
        dropout_seed: another seed for dropout alone; row order and first weights stay.

    Raises:
        TrialFailed: the loss or gradient is not finite, or a single row does not fit.
    """
    fetch_rows(config.settings)
    fetch_last(config.storage, config.folder)
    last, _ = find_resume_point(config.folder, config.settings.max_steps, SOLO_STATE_NAMES)
    if last is not None:
        report(last)
    retry_with_smaller_micro_batch(
        lambda micro_batch_size: _train_from_checkpoint(
            config, micro_batch_size, report, dropout_seed
        ),
        config.settings.micro_batch_size,
    )
    prune_to_adapter(config.folder)
    if config.storage is not None:
        prune(config.storage, [config.trial_id], have_ended=True)


def add_adapter(base: PreTrainedModel, params: Hyperparameters, seed: int) -> PeftModel:
    """The base with a fresh float32 adapter; its weights depend on seed and params alone."""
    set_seed(seed)
    return get_peft_model(
        base, make_lora_config(params, parse_facts(base.config.to_dict()).linear_shapes)
    )


def _train_from_checkpoint(
    config: TrialConfig,
    micro_batch_size: int,
    report: Callable[[TrialReport], None],
    dropout_seed: int | None,
) -> None:
    """Train from the last checkpoint, or from the start, to the end."""
    started_s = time.perf_counter()
    delete_incomplete(config.folder)
    last, progress = read_last_report(config.folder), read_progress(config.folder)
    newest = progress or last
    settings = config.settings
    if last is not None and last.step >= settings.max_steps:
        return
    reset_peak()
    splits = read_rows(settings.rows_dir)
    tokenizer = load_tokenizer(settings.model)
    examples = encode_training_rows(
        tokenizer,
        splits.train,
        settings.max_length_tokens,
        settings.max_new_tokens,
        thinking=settings.thinking,
    )
    batches = Batches(examples, settings)
    base = load_base(settings.model, settings.compute_dtype, settings.base)
    model = add_adapter(base, config.params, settings.seed)
    # The evaluation's batch shrinks as the micro-batch did: either may have filled the memory.
    eval_batch_size = settings.eval_batch_size * micro_batch_size // settings.micro_batch_size
    eval_settings = dataclasses.replace(settings, eval_batch_size=max(1, eval_batch_size))
    rung_callback = RungReportCallback(
        config=config,
        batches=batches,
        eval_rows=partial(select_rung_rows, splits.validation, settings),
        evaluate=lambda rows: evaluate(model, tokenizer, rows, splits.scoring, eval_settings),
        report=report,
        seconds=(last.seconds if last else 0.0) + (progress.training_s if progress else 0.0),
        resumed_s=started_s,
        last_step=last.step if last else 0,
        progress=progress,
    )
    # SFTTrainer rounds trainable weights over NF4 to bfloat16, where AdamW's small updates vanish.
    # PEFT itself keeps float32, so the adapter is hidden from it.
    adapter = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in adapter:
        parameter.requires_grad_(False)
    trainer = SFTTrainer(
        model=model,
        args=_make_training_arguments(config, micro_batch_size, dropout_seed),
        train_dataset=batches.make_dataset(),
        processing_class=tokenizer,
        callbacks=[rung_callback],
    )
    for parameter in adapter:
        parameter.requires_grad_(True)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(newest.checkpoint) if newest else None)


def _make_training_arguments(
    config: TrialConfig, micro_batch_size: int, dropout_seed: int | None
) -> SFTConfig:
    settings = config.settings
    return SFTConfig(
        output_dir=str(config.folder),
        max_steps=settings.max_steps,
        per_device_train_batch_size=micro_batch_size,
        gradient_accumulation_steps=settings.batch_size // micro_batch_size,
        learning_rate=config.params.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        # Routers are frozen. SFTTrainer (1.16) would also leave output_router_logits on in the
        # model's config, over which generate() of transformers 5.23 falls.
        router_aux_loss_coef=0.0,
        optim="adamw_torch",
        bf16=settings.compute_dtype == "bfloat16",
        use_cpu=get_device().type == "cpu",
        gradient_checkpointing=False,
        # Trainer seeds torch's generator with it when it is made, after the adapter has its first
        # weights; the row order is the batches' own. So dropout alone draws from this seed.
        seed=settings.seed if dropout_seed is None else dropout_seed,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        dataloader_pin_memory=get_device().type == "cuda",
        save_strategy="no",
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
    )
