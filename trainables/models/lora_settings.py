"""What both engines give a trial: its adapter's PEFT config, and the steps of its warm-up.

Apart from solo.py, so that a pack's process does without TRL, which takes seconds to import.
"""

from peft import LoraConfig

from trainables.config import Hyperparameters, TrainingSettings


def lora_config(params: Hyperparameters) -> LoraConfig:
    """PEFT's configuration of a trial's adapter."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=params.lora_rank,
        lora_alpha=params.lora_alpha,
        lora_dropout=params.lora_dropout,
        use_rslora=params.use_rslora,
        target_modules=list(params.target_modules),
        bias="none",
    )


def warmup_steps(settings: TrainingSettings) -> int:
    """Steps over which the learning rate rises."""
    return round(settings.warmup_frac * settings.max_steps)
