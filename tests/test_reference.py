"""What the first evaluation of a model says about the questions that it asks."""

import pytest

from stages import reference
from tradeoffs.common import files
from tradeoffs.tokenize.tables import TOKENS


@pytest.mark.parametrize(
    ("limit", "said"),
    [(3, "1 of 2 test answers are longer than evaluate.max_new_tokens (3), where generated ones are cut"), (4, "")],
)
def test_expected_answers_longer_than_a_generated_one_can_be_are_counted(tmp_path, capsys, limit, said):
    # The last token of each ends the answer and is not generated as a part of it.
    rows = [{"id": f"{n}", "ids": list(range(n)), "prompt_tokens": 4} for n in (8, 9)]
    files.write_table(tmp_path / "test.parquet", rows, TOKENS)
    reference._note_long_answers(tmp_path / "test.parquet", limit)
    found = capsys.readouterr().out
    assert said in found and bool(found) == bool(said)
