"""What libraries warn of that is not so here, each by its own words; all else is shown.

A sweep's trials warn in Ray's logs of their workers; other commands load models themselves.
"""

import logging
import warnings

_LOGGED = {
    # It is looked for on a CPU with AVX512-BF16, where load_base has no use for it.
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
    "transformers.integrations.bitsandbytes": "The modules are dequantized in",
    # Prompts are cut after they have been counted.
    "transformers.tokenization_utils_base": "Token indices sequence length is longer",
    # load_base has emptied the generation config; answers end where the chat template says.
    "transformers.trainer_utils": "The tokenizer has new PAD/BOS/EOS tokens",
}
"""How the message begins, by the logger that has it."""
# transformers 5.23 has a new name for it, which 5.17 does not know; TRL and PEFT use the old one.
_DEPRECATED = "`(is_)?gradient_checkpointing` is deprecated"


def hide_false_alarms() -> None:
    """From now on, in this process; whether the libraries are loaded or not."""
    for name in _LOGGED:
        logging.getLogger(name).addFilter(_is_shown)
    warnings.filterwarnings("ignore", _DEPRECATED, FutureWarning)


def _is_shown(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_LOGGED[record.name])
