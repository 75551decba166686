"""jaxcnn compare on made-up run directories: a curve and a name for each, where it ran, and faults in one sentence."""

import io
import json
import resource
import signal
import warnings

import numpy as np
import pytest
from PIL import Image

from jaxcnn import __main__ as command
from jaxcnn.runs.compare import compare_runs, curves, labels
from jaxcnn.text import plain
from tests.test_text import shown


def make(path, commit="a" * 40, dirty=False, kind="cpu", processes=1, resumed=(), rate=0.1):
    path.mkdir(parents=True)
    environment = {
        "git": commit and {"commit": commit, "dirty": dirty},
        "devices": {"platform": "cpu", "kind": kind, "count": 1},
        "processes": processes,
    }
    (path / "config.json").write_text(json.dumps({"rate": rate}))
    (path / "environment.json").write_text(json.dumps(environment | {"resumed": list(resumed)}))
    (path / "status.json").write_text('{"state": "done", "step": 10}')
    lines = [{"step": step, "split": "train", "epoch": step / 5, "loss": 1 / step, "accuracy": 0.5} for step in (5, 10)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return environment


def legend(figure):
    return [shown(text) for text in figure.axes[-1].get_legend().get_texts()]


def test_labels_are_the_shortest_ends_that_tell_runs_apart(tmp_path):
    paths = [tmp_path / name for name in ("a/seed0", "b/seed0", "a/seed1", "b/x/y", "c/x/y", "best")]
    assert labels(paths) == ["a/seed0", "b/seed0", "seed1", "b/x/y", "c/x/y", "best"]
    assert labels([tmp_path / "a", tmp_path / "a" / "a"]) == [f"{tmp_path.name}/a", "a/a"]
    assert labels([tmp_path / "a"]) == ["a"]


def test_every_run_has_its_curve_and_its_name(tmp_path, monkeypatch, capsys):
    names = ["a/seed0", "b/seed0", "_base", r"x$\frac{$", "caf\udce9"]
    for name in names:
        make(tmp_path / name)
    drawn = {}
    monkeypatch.setattr("jaxcnn.runs.compare.curves", lambda runs: drawn.setdefault("figure", curves(runs)))
    paths = [str(tmp_path / name) for name in names]
    # A run that is named twice, in two ways, is one.
    again = str(tmp_path / "b" / ".." / "b" / "seed0")
    assert command.main(["compare", *paths, again, "--plot", str(tmp_path / "curves.svg")]) == 0
    assert len(drawn["figure"].axes[0].lines) == 5
    assert legend(drawn["figure"]) == [f"{plain(name)} train" for name in names]
    assert (tmp_path / "curves.svg").read_text().startswith("<?xml")
    assert "Traceback" not in capsys.readouterr().err


def test_the_table_shows_devices_and_commits(tmp_path):
    first = make(tmp_path / "one")
    gpu = {"platform": "gpu", "kind": "NVIDIA H100", "count": 8}
    later = first | {"devices": gpu, "processes": 2, "git": {"commit": "b" * 40, "dirty": True}}
    make(tmp_path / "two", resumed=[first, later], rate=0.2)
    make(tmp_path / "three", commit=None)
    (tmp_path / "two" / "x").mkdir()
    rows = [*compare_runs([tmp_path / name for name in ("one", "two", "three")]).values()]
    assert [row["devices"] for row in rows] == [
        "1 cpu (cpu)",
        "1 cpu (cpu), then 8 NVIDIA H100 (gpu), 2 processes",
        "1 cpu (cpu)",
    ]
    assert [row["commit"] for row in rows] == [
        "aaaaaaaaaa",
        "aaaaaaaaaa, then bbbbbbbbbb and changes",
        "not in a git checkout",
    ]
    assert [row["rate"] for row in rows] == [0.1, 0.2, 0.1]
    (tmp_path / "one" / "environment.json").unlink()
    assert compare_runs([tmp_path / "one"])[str(tmp_path / "one")]["commit"] is None


@pytest.mark.parametrize(
    "plot, message",
    [
        ("nodir/p.png", "there is no folder nodir"),
        ("p.xyz", ".xyz is not a kind of picture"),
        ("p.pgn", "did you mean 'png'"),
        ("p", "no suffix is not a kind of picture"),
        ("folder.png", "is a folder"),
    ],
)
def test_a_plot_that_cannot_be_is_said_before_any_work(plot, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    make(tmp_path / "one")
    assert command.main(["compare", "one", "--plot", plot]) == 1
    out, error = capsys.readouterr()
    assert error.startswith("error: --plot ") and message in error and error.count("\n") == 1 and out == ""


def test_a_full_disk_is_one_sentence(tmp_path, capsys):
    make(tmp_path / "one")
    size = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, size[1]))
    try:
        code = command.main(["compare", str(tmp_path / "one"), "--plot", str(tmp_path / "p.png")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, size)
        signal.signal(signal.SIGXFSZ, before)
    error = capsys.readouterr().err
    assert code == 1 and "p.png cannot be written" in error and error.count("\n") == 1
    assert not list(tmp_path.glob("*p.png*"))


def test_a_curve_of_one_point_is_seen():
    line = {"step": 10, "split": "train", "epoch": 1.0, "loss": 0.5, "accuracy": 0.9}
    pictures = []
    for lines in ([line], [line | {"loss": None, "accuracy": None}]):
        buffer = io.BytesIO()
        figure = curves({"": lines}, ("loss",))
        if figure.axes[0].get_legend():  # which draws a line of its own
            figure.axes[0].get_legend().remove()
        figure.savefig(buffer, format="png")
        pictures.append(np.asarray(Image.open(buffer).convert("RGB")).astype(int))
    blue = [(np.abs(picture - [31, 119, 180]).sum(-1) < 40).sum() for picture in pictures]
    assert blue[0] > 20 > blue[1]


def test_a_loss_of_zero_and_figures_that_are_not_there_are_drawn_without_a_warning():
    lines = [{"step": step, "split": "train", "epoch": 1.0, "loss": loss} for step, loss in ((1, 0.0), (2, None))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for some in (lines, [*lines, lines[0] | {"loss": 0.5}]):
            curves({"": some}).savefig(io.BytesIO(), format="svg")
