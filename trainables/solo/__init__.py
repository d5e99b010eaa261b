"""The reference engine: TRL's SFTTrainer on stock PEFT, one process a trial."""
