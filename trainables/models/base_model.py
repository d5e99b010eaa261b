"""What both engines train: a frozen Qwen, in NF4 unless asked otherwise, its tokenizer, and a
trial's adapter in PEFT's words. The only place that sets dtype and device."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from trainables.config import BaseType, ComputeDtype, Hyperparameters
from trainables.models.chat_template import END_OF_TURN
from trainables.models.delta_kernels import prepare_fla
from trainables.models.layer_kinds import resolve_targets

DTYPES: dict[ComputeDtype, torch.dtype] = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def get_device() -> torch.device:
    """The GPU that this process sees, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hub id or folder, with a padding token.

    Padding is always masked, so a tokenizer without a padding token pads with an end token.

    Raises:
        ValueError: the tokenizer has no chat template, so it cannot make prompts.
    """
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    if tokenizer.chat_template is None:
        raise ValueError(f"{model} has no chat template; use a Qwen model that has one")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or END_OF_TURN
    return tokenizer


def load_base(
    model: str, compute_dtype: ComputeDtype, base_type: BaseType = "nf4"
) -> PreTrainedModel:
    """The frozen base: linear layers in NF4 with doubly quantised constants (arXiv 2305.14314).

    Embeddings, norms and the head stay in compute_dtype; of a base_type "bf16" everything does.
    """
    dtype = DTYPES[compute_dtype]
    quantization = None
    if base_type == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    logging.disable_progress_bar()
    is_on_gpu = get_device().type == "cuda"
    prepare_fla(torch.cuda.get_device_capability() if is_on_gpu else None)
    with _skip_weight_draws():
        base = AutoModelForCausalLM.from_pretrained(
            model,
            quantization_config=quantization,
            dtype=dtype,
            device_map={"": get_device()},
            attn_implementation="sdpa",
            trust_remote_code=False,
        )
    # What a base says of sampling, penalties or ends of its own is not what scores are of; generate
    # would take from it all that it is not told.
    base.generation_config = GenerationConfig()
    base.requires_grad_(False)
    for module in base.modules():
        if isinstance(module, Linear4bit):
            # transformers keeps the types that a model in NF4 was saved with. What NF4 stands for
            # has none: its scales are float32.
            module.compute_dtype = module.weight.quant_state.dtype = dtype
            # At the first evaluation on a CPU with AVX512-BF16 bitsandbytes repacks weights. Their
            # product has no backward pass (0.50, autograd._functions.matmul_4bit), so training
            # would go on without gradients for the layers below.
            module.support_avx512bf16_for_cpu = False
    for parameter in base.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return base


def make_lora_config(params: Hyperparameters, linear_layers: Collection[str]) -> LoraConfig:
    """PEFT's configuration of a trial's adapter.

    Args:
        linear_layers: all that the model has.
    """
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=params.lora_rank,
        lora_alpha=params.lora_alpha,
        lora_dropout=params.lora_dropout,
        use_rslora=params.use_rslora,
        target_modules=list(resolve_targets(params.target_modules, linear_layers)),
        bias="none",
    )


def autocast(compute_dtype: ComputeDtype) -> torch.autocast:
    """Multiply as training does: in bfloat16 autocast, or as stored if compute is in float32."""
    is_enabled = compute_dtype == "bfloat16"
    return torch.autocast(get_device().type, dtype=torch.bfloat16, enabled=is_enabled)


@contextmanager
def _skip_weight_draws() -> Iterator[None]:
    """Linear layers are made without drawing weights: a second for 200 layers, before the real ones
    are read. What a checkpoint does not hold, transformers draws by rules of its own.
    """
    draw = torch.nn.Linear.reset_parameters
    torch.nn.Linear.reset_parameters = lambda linear: None  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.nn.Linear.reset_parameters = draw  # type: ignore[method-assign]
