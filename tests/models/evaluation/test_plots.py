"""Every plot draws what it is given."""

import io
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure

from tests.hostile_texts import hostile_texts
from unfreeze.models.evaluation import plots
from unfreeze.models.evaluation.plots import plot_confusion, plot_images, plot_lr_curve, plot_schedule, shown
from unfreeze.models.training.suggestions import LrCurve


def test_the_finders_plot_marks_every_suggestion_and_the_used_one() -> None:
    lrs = np.geomspace(1e-5, 1, 50)
    losses = np.linspace(3, 1, 50)
    figure = plot_lr_curve(lrs, LrCurve(lrs, losses, losses).curves(), {"falling": 0.1, "valley": 0.01}, "falling", "x")
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert any("0.1 (used)" in label for label in labels)
    assert any("valley: 0.01" in label for label in labels)


def test_the_schedule_has_a_line_per_layer_group() -> None:
    figure = plot_schedule({"early": [(1, 0.1), (2, 0.2)], "head": [(1, 1.0), (2, 2.0)]}, "x")
    assert [line.get_label() for line in figure.axes[0].get_lines()] == ["early", "head"]


def test_the_confusion_matrix_counts_rows() -> None:
    figure = plot_confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), ["cat", "dog"], "x")
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["1", "1", "1"]


def test_images_have_their_captions() -> None:
    figure = plot_images(np.zeros((3, 8, 8, 3), np.uint8), ["a", "b", "c"], "x")
    assert [axes.get_title() for axes in figure.axes][:3] == ["a", "b", "c"]


CURVE = LrCurve(np.geomspace(1e-4, 1, 9), np.linspace(3, 1, 9), np.linspace(3, 1, 9))
NUMBERS = np.linspace(0, 1, 40)
FIGURES: dict[str, Callable[[Sequence[str]], Figure]] = {
    "plot_lr_curve": lambda texts: plot_lr_curve(CURVE.lrs, CURVE.curves(), {"falling": 0.1}, "falling", texts[0]),
    "plot_schedule": lambda texts: plot_schedule({text: [(1, 0.1), (2, 0.2)] for text in texts}, texts[0]),
    "plot_confusion": lambda texts: plot_confusion(np.arange(40), np.arange(40), texts, texts[0]),
    "plot_labels": lambda texts: plots.plot_labels(
        pd.DataFrame({"label": pd.Series(texts, dtype=object), "f1": NUMBERS, "average_precision": NUMBERS}), texts[0]
    ),
    "plot_images": lambda texts: plot_images(np.zeros((40, 4, 4, 3), np.uint8), texts, texts[0]),
    "plot_embedding": lambda texts: plots.plot_embedding(np.random.default_rng(0).random((40, 3)), texts, texts[0]),
    "plot_importance": lambda texts: plots.plot_importance(dict(zip(texts, NUMBERS, strict=True)), "loss", texts[0]),
    "plot_residuals": lambda texts: plots.plot_residuals(None, NUMBERS, NUMBERS, texts[1], texts[0]),
}


@pytest.mark.parametrize("name", [name for name in vars(plots) if name.startswith("plot_")])
def test_every_figure_takes_any_text(name: str) -> None:
    texts = hostile_texts(80)
    for start in range(0, len(texts), 40):
        with warnings.catch_warnings(action="ignore"):  # of glyphs that the font lacks
            FIGURES[name](texts[start : start + 40]).savefig(buffer := io.BytesIO(), dpi=10)
        assert buffer.getbuffer()[:4] == b"\x89PNG"


def test_a_text_in_a_figure_is_one_short_line_and_no_formula() -> None:
    for text in hostile_texts(1000):
        line = shown(text)
        formula, displayed = is_math_text(line), line.replace(r"\$", "$")
        assert not isinstance(formula, tuple) or not formula[1], text
        assert len(displayed) <= 40
        assert displayed.isprintable() or not displayed
    assert shown("$5 and $6") == r"\$5 and \$6"
