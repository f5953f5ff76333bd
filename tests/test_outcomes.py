"""Groups of answers: what several runs say of one clip is not several clips."""

import pandas as pd
import pytest

from lsmprobe.report.figures import draw_confusion, draw_groups
from lsmprobe.report.outcomes import by_group


def test_runs_that_answer_alike_do_not_narrow_an_interval():
    one = pd.DataFrame(
        {
            "key": [f"k{i}" for i in range(20)],
            "speaker": ["a", "b"] * 10,
            "emotion": "joy",
            "predicted": ["joy"] * 14 + ["anger"] * 6,
        }
    )
    alone, five = by_group(one, "speaker"), by_group(pd.concat([one] * 5), "speaker")
    assert five.clips.tolist() == (5 * alone.clips).tolist()
    for name in ("share", "low", "high"):
        assert five[name].tolist() == pytest.approx(alone[name].tolist())


def test_a_figure_of_answers_says_whose_they_are_unless_they_are_of_several():
    said = pd.DataFrame({"key": ["a"], "speaker": ["s"], "emotion": ["joy"], "predicted": ["joy"]})
    said.attrs["about"] = "tiny, emodb, emotion, linear on layer 3, split loso, norm zscore"
    other = said.copy()
    other.attrs["about"] = "another"
    for draw in (draw_confusion, draw_groups):
        title = draw(pd.concat([said, said])).get_title()
        assert title.replace("\n", " ") == said.attrs["about"]
        assert draw(pd.concat([said, other])).get_title() == ""
