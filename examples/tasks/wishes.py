"""Whether an answer does what its instruction asked for, one check after the other, as ifeval has it."""


def process_results(doc, results):
    said = results[0]
    kept = [word.lower() in said.lower() for word in doc["words"]]
    if doc["longest"]:
        kept.append(len(said) <= doc["longest"])
    kept.append(bool(said.strip()))
    return {"prompt_level_acc": all(kept), "inst_level_acc": kept}


def mean_of_all(items):
    every = [one for kept in items for one in kept]
    return sum(every) / len(every)
