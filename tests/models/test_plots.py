"""Every plot draws what it is given."""

import numpy as np

from unfreeze.models.plots import plot_confusion, plot_images, plot_lr_curve, plot_schedule
from unfreeze.models.training.suggestions import LrCurve


def test_the_finders_plot_marks_every_suggestion_and_the_used_one() -> None:
    lrs = np.geomspace(1e-5, 1, 50)
    losses = np.linspace(3, 1, 50)
    figure = plot_lr_curve(LrCurve(lrs, losses, losses), {"falling": 0.1, "valley": 0.01}, "falling", "x")
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert any("0.1 (used)" in label for label in labels)
    assert any("valley: 0.01" in label for label in labels)


def test_the_schedule_has_a_line_per_layer_group() -> None:
    figure = plot_schedule({"early": [(1, 0.1), (2, 0.2)], "head": [(1, 1.0), (2, 2.0)]}, "x")
    assert [line.get_label() for line in figure.axes[0].get_lines()] == ["early", "head"]


def test_the_confusion_matrix_counts_rows() -> None:
    figure = plot_confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), ["cat", "dog"])
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["1", "1", "1"]


def test_images_have_their_captions() -> None:
    figure = plot_images(np.zeros((3, 8, 8, 3), np.uint8), ["a", "b", "c"], "x")
    assert [axes.get_title() for axes in figure.axes][:3] == ["a", "b", "c"]
