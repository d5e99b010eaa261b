"""The learning rate of a step, exactly as transformers' schedules give it to a solo trial."""

import math

from trainables.config import Schedule


def learning_rate(
    peak: float, schedule: Schedule, step: int, warmup_steps: int, max_steps: int
) -> float:
    """The rate of the step-th optimizer step, counted from 1.

    transformers.optimization: get_linear_schedule_with_warmup, get_cosine_schedule_with_warmup;
    the first step uses their factor at 0.
    """
    done = step - 1
    if done < warmup_steps:
        return peak * (done / max(1, warmup_steps))
    decay_steps = max(1, max_steps - warmup_steps)
    if schedule == "linear":
        return peak * max(0.0, (max_steps - done) / decay_steps)
    progress = (done - warmup_steps) / decay_steps
    return peak * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
