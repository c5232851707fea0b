"""Full fine-tuning on real instruction data: tradeoffs.finetune.training against TRL's SFTTrainer in several settings.

python -m benchmarks.train_full [--quick]
"""

from benchmarks import training_run

if __name__ == "__main__":
    training_run.run("full", target=1.5)
