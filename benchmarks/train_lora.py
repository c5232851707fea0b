"""LoRA on real instruction data: tradeoffs.finetune.training against TRL's SFTTrainer with its defaults.

python -m benchmarks.train_lora [--quick]
"""

from benchmarks import training_run

if __name__ == "__main__":
    training_run.run("lora", target=3.0)
