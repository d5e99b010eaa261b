"""The sizes of one GPU's pack. Standard library only."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """The sizes of one GPU's pack."""

    num_slots: int
    """Trials that train at once."""
    max_rank: int
    """Largest LoRA rank that a slot takes."""
    max_tokens: int
    """Training tokens of one pass, over all slots."""
    eval_tokens: int
    """Positions of evaluation's cache, over slots and rows. A row of a hybrid takes more of them
    than it has: ModelFacts.state_positions."""
    is_dequantised: bool
    """Whether the base is kept in the compute type instead of NF4, as one in bf16 always is."""
    predicted_gib: float
    """Peak of torch.cuda.max_memory_allocated; 0 on a CPU."""
    gpu_gib: float | None = None
    """Memory of the GPU that it was chosen for; None for a CPU."""
    is_checkpointed: bool = False
    """Whether a pass keeps only the blocks' inputs and computes the rest again going backward."""
