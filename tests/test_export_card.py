"""What a card says of a variant is that variant's, whichever it is, and no more than was shown."""

from dataclasses import replace
from pathlib import Path

import fake_results
import pytest

from tradeoffs import params
from tradeoffs.common.cells import Variant
from tradeoffs.export import judged
from tradeoffs.export.chosen import Chosen
from tradeoffs.params import Limits
from tradeoffs.results import decision
from tradeoffs.results.results import Results

pytestmark = pytest.mark.slow  # the fixtures score a run
RUN = {"models": ["demo"], "datasets": ["demo"], "methods": ["base", "full", "lora"], "precisions": ["bf16"]}
RUN |= {"quants": ["q8_0", "q4_0"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("run")
    return folder, fake_results.finished(folder, **RUN)


@pytest.fixture
def whole(run: tuple[Path, Results], monkeypatch: pytest.MonkeyPatch) -> Results:
    """The results of all; the working directory is the run's."""
    monkeypatch.chdir(run[0])
    return run[1]


def choice(name: str) -> Chosen:
    return Chosen(Variant.parse(f"demo-demo-{name}"), params.load_all(), {})


def limited(name: str, most: float) -> str:
    """What the card of a variant says, were there a limit of size."""
    results = fake_results.read()
    results.decide = replace(results.decide, limits=Limits(max_size_mb=most))
    chosen = choice(name)
    chosen.__dict__["decision"] = decision.row(results, decision.decide(results, chosen.variant.pair))
    return judged.decided(chosen)


def test_every_card_has_the_guards_of_its_variant(whole: Results) -> None:
    best = Variant.parse(choice("full-q8_0").decision["best"])
    for variant in whole.variants:
        chosen = Chosen(variant, params.load_all(), {})
        assert chosen.guards == decision.guards(whole, variant, best)
        assert bool(chosen.guards) == (variant.format != "trained" or variant.method != "base")
        said = "\n".join(judged.loses(chosen, chosen.numbers()))
        assert "Nothing was measured" not in said
        assert said.count("beside `demo-demo-base-trained`") == len(chosen.guards)
    assert "multiple choice and general loss: measured, and compared with nothing, as this is the untouched base" in (
        "\n".join(judged.loses(choice("base-trained"), choice("base-trained").numbers()))
    )


def test_a_number_of_the_model_as_trained_is_called_so(whole: Results) -> None:
    for name in ("lora-q8_0", "lora-trained"):
        (line,) = [line for line in judged.loses(choice(name), {}) if "general" in line]
        assert line.startswith("general loss as trained: +")


def test_only_where_nothing_else_was_measured_it_says_so(whole: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = choice("lora-q8_0")
    chosen.__dict__["guards"] = []
    assert judged.loses(chosen, chosen.numbers())[0].startswith("the same most likely token")
    assert "general loss: measured, and compared with nothing" in judged.loses(chosen, {})[0]
    monkeypatch.setattr(Chosen, "numbers", lambda self, variant=None: {})
    assert judged.loses(chosen, {})[0].startswith("Nothing was measured besides the task itself")


def test_what_is_of_several_trainings_is_said(whole: Results) -> None:
    chosen = choice("lora-q8_0")
    assert "seeds" not in judged.decided(chosen)
    cfg = chosen.cfg
    several = Chosen(chosen.variant, replace(cfg, run=replace(cfg.run, seeds=[42, 7])), {})
    several.__dict__.update({"guards": chosen.guards, "results": chosen.results})
    told = "of the mean over the trainings with the seeds 42, 7, while the weights here and the numbers of the table"
    assert told in judged.decided(several)
    assert all(told in line for line in judged.loses(several, {}))


def test_limits_are_said_and_what_is_beyond_them(whole: Results) -> None:
    within, best = limited("full-q4_0", 3), limited("lora-q4_0", 3)
    assert "what keeps the limits (size at most 3 MB), `demo-demo-lora-q4_0`: F1 " in within
    assert best.startswith("Of what keeps the limits (size at most 3 MB) it is the best found, by F1.")
    beyond = limited("full-q8_0", 3)
    assert beyond.startswith("It does not keep the limits that were set (size at most 3 MB): size by 33 %. Beside the")
    assert "margin" not in beyond
    none = limited("lora-q4_0", 1)
    assert "Nothing that was compared keeps them, and this comes nearest." in none
    assert "what keeps" not in none


def test_a_small_share_is_written_by_decimals() -> None:
    assert judged.plain(judged.Interval(1 / 300, 8.4e-05, 0.01843, 0.0), "test_exact_match") == (
        "0.00333 [0.00008, 0.01843]"
    )
