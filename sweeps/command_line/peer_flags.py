"""What users of other trainers type, and the flag here that does it."""

_TARGETS = "lora-target lora-target-modules target-module targets"
_RUN = {
    "--learning-rates LOW HIGH": "lr learning-rate",
    "--lora-ranks RANK [RANK ...]": "r rank lora-r lora-rank",
    "--alphas-over-rank RATIO [RATIO ...], e.g. 2 for alpha 32 at rank 16": "alpha lora-alpha",
    "--lora-dropouts DROPOUT [DROPOUT ...]": "dropout lora-dropout",
    "--target-modules SET [SET ...], e.g. all or q_proj,v_proj": _TARGETS,
}
"""Names by our flag; a sweep searches what others are told."""
_TRIAL = {
    "--learning-rate RATE": "lr",
    "--lora-rank RANK": "r rank lora-r",
    "--lora-alpha ALPHA": "alpha",
    "--lora-dropout DROPOUT": "dropout",
    "--target-modules NAME[,NAME...]": _TARGETS,
}
_BOTH = {
    "--epochs EPOCHS": "num-epochs num-train-epochs epoch n-epochs",
    "--max-steps STEPS": "steps num-steps iters max-iters",
    "--max-length-tokens TOKENS": (
        "max-seq-length max-seq-len max-length cutoff-len sequence-len seq-length "
        "context-length block-size model-max-length"
    ),
    "--batch-size ROWS": "per-device-train-batch-size train-batch-size bs",
    "--batch-size ROWS of a step, and --micro-batch-size ROWS of a pass": (
        "gradient-accumulation-steps grad-accum gradient-accumulation"
    ),
    "--data FILE, DIR or OWNER/NAME": (
        "dataset dataset-name train-file data-path dataset-path train-data"
    ),
    "--input COLUMN": "text-column input-column prompt-column dataset-text-field",
    "--target COLUMN": "label-column target-column summary-column response-column",
    "--max-rows ROWS": "max-train-samples max-samples limit num-samples",
    "--model ID_OR_DIR": "model-name model-name-or-path base-model model-id",
    "--runs-dir DIR": "output-dir out-dir save-dir",
    "--num-trials TRIALS": "n-trials trials num-samples-trials count",
    "--schedule linear or cosine": "lr-scheduler-type lr-scheduler scheduler",
    "--warmup-frac FRACTION": "warmup-ratio warmup-steps",
    "--compute-dtype bfloat16 or float32": "bf16 fp16 dtype torch-dtype",
    "--base nf4 or bf16": (
        "load-in-4bit use-4bit load-in-8bit quantization quantization-bit "
        "bnb-4bit-quant-type use-qlora qlora"
    ),
    "--track some of wandb,mlflow,trackio,tensorboard, or none": "report-to",
    "--wandb online, offline or disabled": "use-wandb",
    "--gpus GPUS": "num-gpus n-gpus",
}


def find_our_flag(error: str, prog: str) -> str:
    """Our flag for the first of a peer's that an error names as unknown; "" if it names none."""
    own = _TRIAL if "sweeps.trial" in prog else _RUN
    ours = {name: flag for flag, names in {**_BOTH, **own}.items() for name in names.split()}
    for word in error.replace(",", " ").split():
        name = word.partition("=")[0].lstrip("-").replace("_", "-").lower()
        if word.startswith("-") and name in ours:
            return f"here that is {ours[name]}"
    return ""
