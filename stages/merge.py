"""Merges what was trained into its base: one self-contained bf16 checkpoint that every runtime can take.

IN   models/base/<model>/, models/trained/<model>-<dataset>-<method>/
OUT  models/merged/<model>-<dataset>-<method>/   bf16 safetensors, config, tokenizer, run_info.json; of a method that
     cannot be merged run_info.json alone, which says why
     python -m stages.merge --model demo --dataset demo --method lora
"""

from pathlib import Path

from tradeoffs import checkpoints, cli, files, merging, params, trained_only

READS = ("merge", "methods.{method}")


def main(model: str, dataset: str, method: str) -> None:
    cfg = params.load(READS, model=model, dataset=dataset, method=method)
    cell = f"{model}-{dataset}-{method}"
    base, trained = Path("models/base", model), Path("models/trained", cell)
    onto = cfg.method.merge or cfg.merge.onto
    checkpoints.require(base, "config.json")
    checkpoints.require(trained, "run_info.json")
    with files.new_folder(Path("models/merged", cell)) as folder:
        why_not = merging.merge(base, trained, method, cfg.method, onto, folder)
        facts = {
            "base": files.read_json(base / "run_info.json"),
            "method": method,
            "params": files.params_hash(onto, cfg.method),
        }
        if why_not:
            facts[trained_only.KEY] = why_not
            print(f"{cell}: {trained_only.sentence(why_not)}")
        else:
            checkpoints.copy_companions(base, folder)
            if cfg.method.load:  # else there is but one base
                facts["merged_onto"] = onto
        files.write_json(folder / "run_info.json", files.run_info(**facts))


if __name__ == "__main__":
    cli.run(main)
