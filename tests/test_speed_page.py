"""docs/speed.md: every figure of its tables of CPU speed is the stored one."""

import json
import re

import numpy as np
import pytest

from tests.tiny_runs import ROOT

PAGE = (ROOT / "docs" / "speed.md").read_text()
RESULTS = ROOT / "docs" / "results"


def stored(name):
    return json.loads((RESULTS / name).read_text())


def table(under, header):
    """Rows of the table whose first line begins so, under this heading: [[cell, ...], ...]."""
    section = PAGE if under is None else PAGE.split(f"\n## {under}\n")[1].split("\n## ")[0]
    (found,) = re.findall(rf"^\| {re.escape(header)}.*\n\|[-| ]+\n((?:\|.*\n)+)", section, re.M)
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in found.splitlines()]


def shown(text):
    return float(text.replace(",", ""))


def digits(text):
    """By how much a figure may be off that is shown so: half of its last digit."""
    return 0.51 * 10.0 ** -len(text.partition(".")[2]) if "." in text else 0.51


def test_loops():
    parts = stored("train_loop.json")
    rows = table(None, "whole loop over bare compiled step")
    names = [
        "LeNet-5, Fashion-MNIST, batch 128",
        "LeNet-5, Fashion-MNIST, batch 128, 25 steps a call",
        "LeNet-5, Fashion-MNIST, crops and flips",
        "LeNet-5, Fashion-MNIST, crops and flips, 25 steps a call",
        "LeNet-5, digits, rotated and shifted, batch 64",
        "ResNet-20, CIFAR-10 as JPEG",
        "VGG-A with batch norm, three stages, 0.375 as wide, Fashion-MNIST",
        "VGG-A, 32 px, synthetic, batch 64",
    ]
    assert len(rows) == len(names)
    for name, (_, rates, ratio) in zip(names, rows, strict=True):
        whole, bare = rates.split(" over ")
        part = parts[name]
        for text, figure in ((whole, "whole loop, images/s"), (bare, "bare step, images/s"), (ratio, "ratio")):
            assert shown(text) == pytest.approx(part[figure], abs=digits(text)), name
    each = "ratios of the three runs"
    runs = {name: part[each] for name, part in parts.items() if isinstance(part, dict) and each in part}
    told = re.findall(r"\d\.\d\d", PAGE.split("what else the machine does:")[1].split("\n\n")[0])
    assert [*map(float, told)] == [round(ratio, 2) for ratios in runs.values() for ratio in ratios]
    for name, ratios in runs.items():
        assert parts[name]["ratio"] == pytest.approx(np.median(ratios), abs=1e-3)


def test_starts_and_commands():
    parts = stored("train_loop.json")
    rows = table(None, "net | cold, before")
    names = [
        "start to first step, LeNet-5 on digits",
        "start to first step, EfficientNet-B0 at 224, made-up images, batch 1",
        "start to first step, DenseNet-121 at 224, made-up images, batch 1",
    ]
    for name, (_, old, cold, kept) in zip(names, rows, strict=True):
        figures = (parts[name][side] for side in ("cold, before, s", "cold, s", "with the compile cache, s"))
        for text, figure in zip((old, cold, kept), figures, strict=True):
            assert shown(text) == pytest.approx(figure, abs=digits(text)), name
    found = re.search(r"takes ([\d.]+) s, `jaxcnn models` ([\d.]+)\. Resident memory grows by (\d+) bytes", PAGE)
    helped, models, grown = found.groups()
    assert float(helped) == pytest.approx(parts["jaxcnn --help, s"], abs=digits(helped))
    assert float(models) == pytest.approx(parts["jaxcnn models, s"], abs=digits(models))
    assert float(grown) == pytest.approx(parts["memory"]["slope, bytes per step"], abs=digits(grown))


def test_initial_states():
    nets = stored("initial_state.json")["nets"]
    rows = table(None, "variables of")
    assert [row[0] for row in rows] == [*nets] and all(net["same bits"] for net in nets.values())
    for name, *cells in rows:
        ways = (nets[name]["one operation"], nets[name]["one for each"])
        figures = [way[figure] for figure in ("compile, processor s", "memory to draw, MiB") for way in ways]
        for text, figure in zip(cells, figures, strict=True):
            assert shown(text) == pytest.approx(figure, abs=digits(text)), name


def test_convolutions():
    onednn, xla = stored("convolutions.json"), stored("convolutions_xla.json")
    lowest = [onednn["slowest over ours"], xla["slowest over ours"]]
    assert {name: ratios for name, *ratios in table("Convolutions on a CPU", "shapes | forward")} == {
        name: [f"{part['over ours']['torch']:.2f}" for side in lowest for part in side[name].values()]
        for name in lowest[0]
    }
    assert [*onednn["convolutions"]] == [*xla["convolutions"]] and len(xla["convolutions"]) >= 60
    assert onednn["ours by"].startswith("oneDNN") and xla["ours by"] == "XLA"


def test_train_steps():
    onednn, xla = stored("train_step_cpu.json")["nets"], stored("train_step_cpu_xla.json")["nets"]
    rows = table("A whole train step on a CPU", "net | PyTorch, images/s")
    assert [row[0] for row in rows] == [*onednn] == [*xla]
    assert all(net["jaxcnn"]["convolutions"].startswith("oneDNN") for net in onednn.values())
    assert all(net["jaxcnn"]["convolutions"] == "XLA" for net in xla.values())
    for name, torch, ours, ratio, plain, plain_ratio in rows:
        figures = {
            torch: onednn[name]["torch"]["images/s"],
            ours: onednn[name]["jaxcnn"]["images/s"],
            ratio: onednn[name]["ratio"],
            plain: xla[name]["jaxcnn"]["images/s"],
            plain_ratio: xla[name]["ratio"],
        }
        for text, figure in figures.items():
            assert shown(text) == pytest.approx(figure, rel=5.1e-3, abs=5.1e-3), name  # three digits


def test_training_with_other_convolutions():
    """Accuracies of both are within the seeds' spread: the means are nearer than the smaller of both spreads."""
    runs = stored("resnet20_convolutions.json")["runs"]
    last = {
        (run["convolutions"].startswith("oneDNN"), run["seed"]): (
            run["test"]["accuracy"],
            run["train loss of each 50 steps"][-1],
        )
        for run in runs
    }
    rows = table("Training with other convolutions", "seed | test accuracy")
    assert [row[0] for row in rows] == ["0", "1", "2"]
    for seed, *figures in rows:
        expected = [last[by, int(seed)][figure] for figure in (0, 1) for by in (False, True)]
        for text, figure in zip(figures, expected, strict=True):
            assert shown(text) == pytest.approx(figure, abs=digits(text))
    accuracies = np.array([[last[by, seed][0] for seed in (0, 1, 2)] for by in (False, True)])
    assert len(runs) == 6 and abs(np.diff(accuracies.mean(1)))[0] < accuracies.std(1, ddof=1).min()
    for run in runs:
        losses = run["train loss of each 50 steps"]
        assert losses[-1] < 0.6 * losses[0]


def test_kept_memory():
    nets = stored("kept_memory.json")["nets"]
    rows = table("A whole train step on a CPU", "net | kept, images/s")
    assert [row[0] for row in rows] == [*nets]
    for name, *figures in rows:
        settings = nets[name].values()
        rates, seconds = ([each[figure] for each in settings] for figure in ("images/s", "compilation, s"))
        for text, figure in zip(figures[:4], rates, strict=True):
            assert shown(text) == pytest.approx(figure, rel=5.1e-3), name  # three digits
        for text, figure in zip(figures[4:], seconds, strict=True):
            assert shown(text) == pytest.approx(figure, abs=digits(text)), name
