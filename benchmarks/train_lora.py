"""LoRA on real instruction data: tradeoffs.finetune.training against TRL's SFTTrainer in several settings.

python -m benchmarks.train_lora [--quick]
"""

from benchmarks import training_run

if __name__ == "__main__":
    training_run.run("lora", target=1.5)
