"""Plots of a study: names as they are, curves of one point, intervals without a loss, early evaluations."""

import io
import json
import warnings

import numpy as np
import pytest

from jaxcnn.report.page import svg
from jaxcnn.studies.cell import Cell
from jaxcnn.studies.plots import cost_plots, curve_plots, values_plots
from jaxcnn.text import plain
from tests.test_text import NAMES, shown


def cell(path, name, lines):
    path.mkdir(parents=True)
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Cell(name, None, 0, path)


def train(step, loss):
    return {"step": step, "split": "train", "epoch": step / 10, "loss": loss, "accuracy": 0.5}


def evaluated(step, accuracy):
    return {"step": step, "split": "validation", "loss": 1.0, "accuracy": accuracy}


@pytest.mark.parametrize("name", [*NAMES, r"x$\frac{$", "caf\udce9"])
def test_an_arm_has_its_name_in_every_plot(name, tmp_path):
    arms = {
        arm: {
            "cells": [{"figures": {"test accuracy": 0.5}}],
            "versus_baseline": {"mean": 0.1, "low": None, "high": None},
            "counts": {"parameters": number, "multiply-adds": 10 * number},
            "figures": {"test accuracy": {"mean": 0.5, "deviation": None}},
        }
        for number, arm in enumerate((name, "other"), 1)
    }
    results = {"metric": "test accuracy", "arms": arms}
    cells = [
        cell(tmp_path / str(i), arm, [train(5, 1.0), evaluated(2, 0.3), evaluated(5, 0.5)])
        for i, arm in enumerate((name, "other"))
    ]
    drawn = values_plots(results) | curve_plots(cells) | cost_plots(results)
    assert len(drawn) == 6
    for kind, figure in drawn.items():
        assert svg(figure, kind).startswith("<svg")
        (axes,) = figure.axes
        ticks, legend = axes.get_yticklabels(), axes.get_legend()
        texts = ticks if kind in ("values", "differences") else legend.get_texts()
        assert shown(texts[0]) == plain(name)
    assert shown(drawn["differences"].axes[0].xaxis.label) == f"difference to {plain(name)}"


def test_a_curve_of_one_point_is_a_dot_and_one_of_nothing_is_left_out(tmp_path):
    one = [cell(tmp_path / "one", "a", [train(5, 1.0)])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = curve_plots(one)
        for figure in drawn.values():
            figure.savefig(io.BytesIO(), format="svg")
    assert drawn["loss"].axes[0].lines[0].get_marker() == "o" and [*drawn] == ["loss"]
    assert curve_plots([cell(tmp_path / "none", "a", [])]) == {}


def test_an_interval_without_a_loss_is_a_gap(tmp_path):
    cells = [cell(tmp_path / "a", "a", [train(5, 1.0), train(10, None), train(15, 0.5)])]
    values = curve_plots(cells)["loss"].axes[0].lines[0].get_ydata()
    np.testing.assert_array_equal(values, [1.0, np.nan, 0.5])


def test_an_evaluation_before_the_first_logged_line_lies_at_its_epoch(tmp_path):
    cells = [cell(tmp_path / "a", "a", [evaluated(2, 0.3), train(5, 1.0), evaluated(10, 0.5)])]
    (line,) = curve_plots(cells)["score"].axes[0].lines
    np.testing.assert_allclose(line.get_xydata(), [[0.2, 0.3], [1.0, 0.5]])
