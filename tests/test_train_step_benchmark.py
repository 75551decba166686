"""benchmarks/train_step.py without its measurements: what it writes, goes on with, and makes a table of."""

import json
import pathlib
import sys
from collections.abc import Sequence

import pytest

from benchmarks import train_step
from jaxcnn.models import MODELS

ROOT = pathlib.Path(__file__).parents[1]
STORED = ROOT / "docs/results/train_step.json"


def figures(rate, **more):
    return {"images/s": rate, "device": "NVIDIA H200", "memory, MiB": 2048.4, "compilation, s": 20.2} | more


def run(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["train_step", *map(str, flags)])
    train_step.main()


def test_what_is_measured_is_written_at_once_and_not_measured_again(monkeypatch, tmp_path):
    asked = []

    def torch_sides(names, arguments, until):
        asked.append(("torch", *names))
        for name in names:
            yield name, figures(100)

    def jax_sides(side, names, arguments, until):
        asked.append((side, *names))
        yield names[0], figures(120)
        raise KeyboardInterrupt

    monkeypatch.setattr(train_step, "measured_torch", torch_sides)
    monkeypatch.setattr(train_step, "measured_jax", jax_sides)
    out = tmp_path / "out.json"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(monkeypatch, "--models", "resnet50", "vgg16", "--out", out)
    assert asked == [("torch", "resnet50", "vgg16"), ("jaxcnn", "resnet50", "vgg16"), ("torch",), ("jaxcnn", "vgg16")]
    nets = json.loads(out.read_text())["nets"]
    assert {(name, side): nets[name][side]["images/s"] for name in nets for side in ("torch", "jaxcnn")} == {
        **{(name, "torch"): 100 for name in nets},
        **{(name, "jaxcnn"): 120 for name in nets},
    }


def test_a_process_that_fails_or_never_compiles_says_so_and_leaves_the_rest(monkeypatch):
    code = """import pathlib, sys, time
side, name, *_, ready, go, debug = sys.argv[1:]
if name == "slow": time.sleep(60)
if name == "wrong": raise ValueError("no such net")
pathlib.Path(ready).touch()
while not pathlib.Path(go).exists(): time.sleep(0.01)
print('{"images/s": 7}')
"""
    started = train_step.subprocess.Popen
    monkeypatch.setattr(
        train_step.subprocess, "Popen", lambda command, **of: started([sys.executable, "-c", code, *command[3:]], **of)
    )
    names = ("slow", "wrong", "good")
    arguments: dict[str, Sequence[object]] = {name: (1, 1, 1, 1, "debug") for name in names}
    found = dict(train_step.measured_torch(names, arguments, train_step.time.monotonic() + 60, limit=8))
    assert found["slow"]["failed"].startswith("not compiled after")
    assert found["wrong"] == {"failed": "ValueError: no such net"} and found["good"] == {"images/s": 7}


def test_the_table_says_what_failed_and_what_was_not_run():
    row = {"batch": 64, "image": 224, "torch": figures(1000.4), "jaxcnn": figures(1200.6, losses=[2.0, 1.0])}
    plain = figures(1100, losses=[2.0, 1.01])
    nets = {"resnet18": row | {"plain": plain}, "senet154": {"batch": 8, "image": 224, "torch": {"failed": "slow"}}}
    result = train_step.with_counts({"nets": nets})
    counted = result["nets"]["resnet18"]
    assert counted["multiply-adds"] == pytest.approx(1.81e9, rel=0.01)  # He et al. 2015, table 1: 1.8e9
    assert counted["share of peak"] == pytest.approx(1200.6 * 6 * counted["multiply-adds"] / 989e12)
    assert counted["largest relative difference of a loss from plain"] == pytest.approx(0.0099, rel=0.01)
    assert train_step.table(result)[2:] == [
        "| resnet18, 64 | 1,000 | 1,201 | 1.20 | 0.01 | 2,048, 2,048 | 20, 20, - |",
        "| senet154, 8 | slow | not run | - | - | -, - | -, -, - |",
    ]


def test_the_page_has_the_table_of_the_stored_run_or_says_that_there_is_none():
    section = (ROOT / "docs/speed.md").read_text().split("## A whole train step beside timm's")[1].split("\n## ")[0]
    if STORED.exists():
        assert "\n".join(train_step.table(json.loads(STORED.read_text()))) in section
    else:
        assert "not run" in section and "|" not in section


def test_it_has_every_family():
    assert MODELS.keys() >= train_step.NETS.keys() and len(train_step.NETS) == 13
