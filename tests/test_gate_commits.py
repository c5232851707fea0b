"""The gate's command over commits: exit codes, what it says where something is missing, and its files."""

# ruff: noqa: F811 (fixtures of fake_gate_team)

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import fake_commits
import fake_gate
import pytest
import quick_yaml
from fake_commits import git
from fake_gate_team import F16, LORA, fact, finished, gate, project, recommend, scaled  # noqa: F401
from hostile import EVERY, OBEYED

from tradeoffs.common.cells import Variant
from tradeoffs.gate import __main__ as command
from tradeoffs.gate import writing
from tradeoffs.gate.costing import Costing
from tradeoffs.gate.definitions import Changed
from tradeoffs.gate.rows import LEFT_OUT, NOT_COMPARED, WORSE, Gate, Gated, Row
from tradeoffs.metrics import registry
from tradeoffs.results.intervals import Interval
from tradeoffs.revisions import Revision

UNCHANGED = ("f1", "rouge_l", "bertscore", "cosine")


def words(found: dict, variant: Variant = LORA) -> dict[str, str]:
    [rows] = [one["rows"] for one in found["variants"] if one["variant"] == str(variant)]
    return {row["name"]: row["word"] for row in rows}


def test_what_has_not_changed_passes_and_only_what_is_recommended_is_gated(project, capsys):
    code, said, found = gate(capsys)
    assert code == 0 and said.startswith("**PASS**")
    assert [one["variant"] for one in found["variants"]] == [str(LORA)]
    assert set(words(found).values()) <= {"SAME", "PASS"}
    assert {"test_loss", "test_exact_match", "mmlu_accuracy", "general_loss", "size_mb"} <= set(words(found))


def test_a_loss_that_is_worse_ends_with_1_and_what_is_as_it_was_is_said_to_be(project, capsys):
    scaled(LORA, "log_likelihood", 1.5)
    fake_gate.commit("worse")
    code, said, found = gate(capsys, head="HEAD", policy="variants: all\n")
    assert code == 1
    assert f"**WORSE**: test loss of `{LORA}`" in said or f"test loss of `{LORA}`" in said
    assert words(found)["test_loss"] == WORSE and words(found)["mmlu_accuracy"] == "NOT SHOWN"  # of 16 questions
    assert set(words(found, F16).values()) <= {"SAME", "PASS"}
    code, said, found = gate(capsys, head="HEAD", policy=f"variants: [{F16}]\n")
    assert code == 0, said
    # Of 32 items no change of any other score shows little of what could change.
    wide = ", ".join(f"{name}: 0.5" for name in ("exact_match", "mmlu_accuracy", *UNCHANGED))
    code, _, found = gate(capsys, head="HEAD", policy=f"ignore: [loss, bits_per_byte]\nmetrics: {{{wide}}}\n")
    assert code == 0 and "test_loss" not in words(found), words(found)
    code, _, found = gate(capsys, head="HEAD", policy=f"metrics: {{loss: 0.9, bits_per_byte: 0.9, {wide}}}\n")
    assert code == 0 and words(found)["test_loss"] == "PASS"
    assert gate(capsys, base="HEAD", head="base", policy=f"metrics: {{{wide}}}\n")[0] == 0  # the other way round


def test_a_larger_file_is_worse_but_by_a_margin_of_ones_own(project, capsys):
    fact(LORA, size_mb=json.loads(LORA.facts.read_text())["size_mb"] * 1.05)
    fake_gate.commit("larger")
    assert words(gate(capsys)[2])["size_mb"] == WORSE
    assert gate(capsys, policy="costs: {size_mb: 0.1}\n")[0] == 0


def test_a_change_cannot_widen_the_margins_that_it_is_judged_by(project, capsys):
    scaled(LORA, "log_likelihood", 1.5)
    raw = quick_yaml.load(Path("params.yaml").read_text())
    raw["decide"]["margins"] |= {"loss": 10.0, "bits_per_byte": 10.0}
    Path("params.yaml").write_text(quick_yaml.dump(raw))
    fake_gate.commit("wider")
    code, said, _ = gate(capsys)
    assert code == 1 and re.search(r"decide.margins of [\w, \\]+ have changed", said)


def test_another_recommendation_is_held_against_the_one_that_was(project, capsys):
    recommend(F16)
    fake_gate.commit("another")
    code, _, found = gate(capsys)
    [decision] = found["decisions"]
    assert (decision["before"], decision["after"]) == (str(LORA), str(F16))
    assert {row["name"]: row["word"] for row in decision["rows"]}["size_mb"] == WORSE
    assert code == 1


def test_a_removed_variant_is_said_and_stops_what_names_it(project, capsys):
    raw = quick_yaml.load(Path("params.yaml").read_text())
    raw["run"]["quants"].remove("q4_0")
    Path("params.yaml").write_text(quick_yaml.dump(raw))
    recommend(F16)
    fake_gate.commit("fewer")
    code, said, found = gate(capsys, policy=f"variants: [{LORA}, {F16}]\n")
    assert code != 0 and "removed: head does not have it" in said
    assert [one["missing"] for one in found["variants"] if one["variant"] == str(LORA)] == [True]
    _, said, _ = gate(capsys, base="HEAD", head="base", policy=f"variants: [{LORA}, {F16}]\n")
    assert "new: base does not have it" in said


def test_what_is_missing_never_passes(project, capsys):
    shutil.rmtree(".dvc/cache")
    code, said, _ = gate(capsys)
    assert code == 2 and "dvc push" in said
    assert gate(capsys, base="nothing")[0] == 2
    Path("metrics/decision.json").unlink()
    fake_gate.commit("no decision")
    code, said, _ = gate(capsys, base="HEAD")
    assert code == 2 and "metrics/decision.json" in said


def test_a_lock_that_is_not_of_its_settings_code_or_files_says_nothing(project, capsys):
    scaled(LORA, "log_likelihood", 2.0)
    code, said, _ = gate(capsys)
    assert code == 2 and f"{LORA.items}: not as dvc.lock has it" in said
    git("checkout", "-q", "base")
    LORA.items.unlink()
    assert "not here; dvc pull" in gate(capsys)[1]
    Path("tradeoffs/metrics/answers.py").write_text("# other code\n")
    code, said, _ = gate(capsys)
    assert code == 2 and "score: was run with another tradeoffs/metrics" in said


def test_what_dvc_lock_keeps_of_an_earlier_run_list_is_not_what_the_numbers_are_of(project, capsys):
    lock = quick_yaml.load(Path("dvc.lock").read_text())
    left = {
        "cmd": "x",
        "params": {"params.yaml": {"seed": 7}},
        "outs": [{"path": "models/gguf/old.gguf", "md5": 32 * "0"}],
    }
    lock["stages"]["quantize@old"] = left
    Path("dvc.lock").write_text(quick_yaml.dump(lock))
    assert gate(capsys)[0] == 0
    lock["stages"]["score"]["params"] = {"params.yaml": {"seed": 7}}
    Path("dvc.lock").write_text(quick_yaml.dump(lock))
    code, said, _ = gate(capsys)
    assert code == 2 and "score: was run with another seed" in said and "quantize@old" not in said


@pytest.mark.parametrize(
    "policy, said",
    [
        ("variants: recomended\n", "did you mean recommended?"),
        ("variants: []\n", "variants: must be"),
        (f"variants: [{LORA}x]\n", f"did you mean {LORA}?"),
        ("metrics: {exact_mach: 0.1}\n", "did you mean exact_match?"),
        ("metrics: {kld_tail: 0.1}\n", "neither end of it is better"),
        ("metrics: {f1: 0}\n", "metrics.f1: must be above 0"),
        ("metrics: {f1: .nan}\n", "metrics.f1"),
        ("costs: {size: 0.1}\ncosta: 1\n", "costa: unknown key (did you mean costs?)"),
        ("costs: {size: 0.1}\n", "costs.size: unknown cost"),
        ("ignore: [f1]\nmetrics: {f1: 0.1}\n", "leave out one of them"),
        ("- f1\n", "must be a block of keys"),
    ],
)
def test_a_bad_policy_is_one_message_and_exit_code_2(project, capsys, policy, said):
    code, found, _ = gate(capsys, policy=policy)
    assert code == 2 and said in found and "Traceback" not in found


def test_a_bug_does_not_read_as_worse(project, capsys, monkeypatch):
    monkeypatch.setattr(command, "judge", lambda *_: 1 / 0)
    code, said, _ = gate(capsys)
    assert code == 2 and "ZeroDivisionError" in said


@pytest.mark.parametrize(
    "old, new, other",
    [
        ("return 2 * shared / (len(ours) + len(theirs))", "return shared / (len(ours) + len(theirs))", {"f1"}),
        ('"""Whether the answer is one JSON object by', '"""Another docstring: whether it is one by', set()),
        (
            '_ARTICLES = re.compile(r"\\b(a|an|the)\\b")',
            '_ARTICLES = re.compile(r"\\b(a|an)\\b")',
            {"f1", "exact_match"},
        ),
    ],
)
def test_a_changed_definition_is_found_by_the_code_that_a_score_goes_through(project, old, new, other):
    path = Path("tradeoffs/metrics/answers.py")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    fake_gate.commit("another definition")
    changed = Changed(Revision("base"), Revision("HEAD"))
    scored = [metric for metric in registry.scored() if metric.name not in ("cosine_to_base",)]
    assert {metric.name for metric in scored if changed.of(metric)} == other
    assert {changed.of(metric) for metric in scored} <= {"", "scored by another definition"}


def test_scores_of_code_that_was_not_committed_are_not_compared(project):
    lock = quick_yaml.load(Path("dvc.lock").read_text())
    lock["stages"]["score"]["deps"][1]["md5"] = "0" * 32 + ".dir"
    Path("dvc.lock").write_text(quick_yaml.dump(lock))
    fake_commits.committed("other code")
    changed = Changed(Revision("base"), Revision("HEAD"))
    assert "not committed" in changed.of(registry.METRICS["f1"])


def test_hostile_texts_stay_texts_in_all_files(project):
    side = Revision("base")
    rows = [Row("test_f1", text, "quality", 0.5, None, None, None, NOT_COMPARED, note=text) for text in EVERY]
    found = Gate(side, side, command.policies.Policy(), [Gated(LORA, rows)], [], list(EVERY), None, None)
    text = writing.markdown(found)
    assert not OBEYED.search(text) and "<script" not in text and "<img" not in text
    assert all(line.count(" | ") == 6 for line in text.splitlines() if line.startswith("| `"))
    xml = writing.junit(found)
    assert not OBEYED.search(xml)
    cases = ElementTree.fromstring(xml.partition("\n")[2]).findall("testsuite/testcase")
    assert len(cases) == len(EVERY) and all(case.find("error") is not None for case in cases)
    assert json.loads(writing.dumped(writing.document(found)))["exit_code"] == 2


def test_of_very_many_rows_the_worst_are_in_the_table(project):
    side, row = Revision("base"), Row("test_f1", "F1", "quality", 0.5, 0.5, None, 0.02, "NOT SHOWN")
    many = [
        *[row] * 150,
        dataclasses.replace(row, label="the worst", word=WORSE),
        dataclasses.replace(row, word="PASS"),
    ]
    text = writing.markdown(Gate(side, side, command.policies.Policy(), [Gated(LORA, many)], [], [], None, None))
    assert text.count("| NOT SHOWN") == 99 and "| the worst |" in text
    assert "Not in the table: 51 NOT SHOWN, 1 PASS." in text


def test_one_thing_that_is_missing_or_not_compared_is_enough_not_to_pass(project):
    side, passed = Revision("base"), Row("test_f1", "F1", "quality", 0.5, 0.5, None, 0.02, "PASS")

    def code(*gated: Gated) -> int:
        return Gate(side, side, command.policies.Policy(), list(gated), [], [], None, None).exit_code

    good = Gated(F16, [passed])
    assert code(good) == 0
    assert code(good, Gated(LORA, [], "new")) == 0
    assert code(good, Gated(LORA, [], "removed", missing=True)) == 2
    assert code() == 2
    for word, expected in (("NOT COMPARED", 2), ("NOT SHOWN", 2), ("WORSE", 1), ("LEFT OUT", 0), ("BETTER", 0)):
        assert code(good, Gated(LORA, [dataclasses.replace(passed, word=word)])) == expected
    cost = dataclasses.replace(passed, name="size_mb", kind="cost")
    assert code(Gated(LORA, [cost])) == 2  # nothing of quality was compared


def test_a_speed_of_another_machine_is_left_out_and_one_of_the_same_is_judged(project, capsys):
    fact(LORA, shapes="another")
    cost = json.loads(Path("data/cost.json").read_text())
    for thing in cost["things"]:
        if str(LORA) in thing["members"]:
            thing["members"].remove(str(LORA))
            mine = json.loads(json.dumps(thing)) | {"shapes": "another", "members": [str(LORA)]}
    for one in mine["rounds"]:
        one["decode_tokens_per_second"] /= 3
        one["prefill_tokens_per_second"] *= 3
    cost["things"].append(mine)
    for thing in cost["things"]:  # the machine had a good hour
        for one in thing["rounds"]:
            one["decode_tokens_per_second"] *= 2
            one["prefill_tokens_per_second"] *= 2
    write(cost)
    fake_gate.commit("slower")
    found = words(gate(capsys)[2])
    assert (found["decode_tokens_per_second"], found["prefill_tokens_per_second"]) == (WORSE, "BETTER")
    cost["hardware"]["machine"] = "iron"
    write(cost)
    fake_gate.commit("elsewhere")
    code, said, documented = gate(capsys)
    assert words(documented)["decode_tokens_per_second"] == LEFT_OUT and "measured on other hardware" in said
    assert code == 0


def write(cost: dict) -> None:
    Path("data/cost.json").unlink()
    Path("data/cost.json").write_text(json.dumps(cost))


def test_what_cannot_be_written_is_not_worse(project, capsys):
    with pytest.raises(SystemExit) as end:
        command.main("base", "WORKSPACE", None, Path("data"), Path("gate.json"), None)
    assert end.value.code == 2 and "data: cannot be written" in capsys.readouterr().err
    assert json.loads(Path("gate.json").read_text())["exit_code"] == 2


def test_a_reader_that_has_seen_enough_does_not_swallow_the_verdict(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        command._print("**WORSE**\n", stream)
        command._print("again", stream)


def test_the_policy_of_the_base_judges_and_a_new_one_is_said(project, capsys):
    Path("gate.yaml").write_text("ignore: [f1, exact_match]\n")
    git("add", "gate.yaml")
    git("commit", "-q", "-m", "a policy")
    Path("gate.yaml").write_text("ignore: [bertscore]\n")
    code, said, found = gate(capsys, head="HEAD")
    assert code == 0 and "ignores 2 metrics and costs" in said.splitlines()[0] and "test_f1" not in words(found)
    _, said, found = gate(capsys, base="HEAD")
    assert "judged by that of HEAD" in said and "test_f1" not in words(found) and "test_bertscore" in words(found)


def test_a_speed_of_the_same_shapes_that_moved_is_never_said_to_be_the_same(project, capsys):
    cost = json.loads(Path("data/cost.json").read_text())
    for thing in cost["things"]:
        for one in thing["rounds"]:
            one["decode_tokens_per_second"] /= 10
    write(cost)
    fake_gate.commit("slow code")
    code, _, found = gate(capsys)
    assert code == 0 and words(found)["decode_tokens_per_second"] == LEFT_OUT and "moved by 0.10" in json.dumps(found)


def test_a_cost_passes_only_if_its_worse_end_is_within_the_margin():
    judged = Costing.__new__(Costing)._word
    word = lambda low, high, name: judged(Interval((low + high) / 2, low, high, 0.0), name, 1.0)[0]  # noqa: E731
    assert word(-0.5, 0.9, "model_memory_mb") == "PASS" and word(-0.5, 1.5, "model_memory_mb") == "NOT SHOWN"
    assert word(-1.5, 0.5, "decode_tokens_per_second") == LEFT_OUT
    assert word(1.1, 1.5, "model_memory_mb") == WORSE
