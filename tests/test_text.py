"""Names as people write them, in every table, line and figure: nothing of them is read as markup, nothing is lost."""

import dataclasses
import io
import sys

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from jaxcnn import __main__ as command
from jaxcnn import create_model
from jaxcnn.cluster.doctor import Finding, findings_table
from jaxcnn.report.page import write_page
from jaxcnn.runs import prediction as predict
from jaxcnn.runs.compare import comparison_table, curves
from jaxcnn.runs.display import Display, result_table
from jaxcnn.runs.prediction import Prediction
from jaxcnn.studies.command import show
from jaxcnn.summary.summary import summarize
from jaxcnn.summary.table import summary_table
from jaxcnn.tasks.task import Answer
from jaxcnn.text import in_figure, plain, print_plain, table

NAMES = ["[bird]", "cat [small]", ":dog:", "a[/b].png", "low [/lr]", "[red]", "x$y$", "_base", "naïve", r"\[b]"]


def printed(*things):
    file = io.StringIO()
    console = Console(file=file, width=200)
    for thing in things:
        console.print(thing)
    return file.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_every_table_shows_a_name_as_it_is(name):
    tables = [
        table([name], [["other"]]),
        table(["class"], [[name]]),
        result_table({name: {"accuracy": 1.0, "count": 3}}),
        comparison_table({name: {"state": "done"}}),
        comparison_table({"run": {"state": name, name: 1}}),
        findings_table([Finding("data", "ok", name)]),
    ]
    for each in tables:
        assert name in printed(each)


@pytest.mark.parametrize("classes", [3, 20])
def test_the_figures_of_many_metrics_fit_a_terminal(classes):
    result = {split: {f"iou_class{i}": i / 100 for i in range(classes)} | {"count": 1234} for split in ("test", "val")}
    file = io.StringIO()
    Console(file=file, width=80).print(result_table(result, {"val": "validation"}))
    shown = file.getvalue()
    for i in range(classes):
        assert f"iou class{i}" in shown and f"{i / 100:.4f}" in shown
    assert "1,234" in shown and "val (validation)" in shown


def test_a_summary_shows_an_endpoint_as_it_is():
    counted = summarize(create_model("linear"), (8, 8, 1))
    (first, *_) = counted.endpoints.values()
    made = summary_table(dataclasses.replace(counted, endpoints={"map [/x]": first, ":dog:": first}), "linear")
    assert "map [/x]" in printed(made) and ":dog:" in printed(made)


def test_a_study_shows_its_arms_and_claims_as_they_are(monkeypatch):
    from jaxcnn.studies import command as study_command

    monkeypatch.setattr(study_command, "rows", lambda _: [{"arm": "low [/lr]", "n": "1 of 1"}])
    file = io.StringIO()
    claim = {"verdict": "supported", "text": "[a] is :dog:", "change": "", "reason": "[/b]"}
    show({"claims": [claim], "tuning": None}, Console(file=file, width=100))
    assert "low [/lr]" in file.getvalue() and "supported: [a] is :dog:" in file.getvalue()


def test_a_line_is_printed_as_it_is():
    file = io.StringIO()
    print_plain(Console(file=file, width=20), "page runs/[x]/:dog:/" + "long" * 20 + "\nnext [/b]")
    assert file.getvalue() == "page runs/[x]/:dog:/" + "long" * 20 + "\nnext [/b]\n"


def test_a_bar_shows_a_split_as_it_is():
    file = io.StringIO()
    with Display(Console(file=file, force_terminal=True, width=120)) as display:
        with display.task("evaluate [/x]", 3) as advance:
            advance(1, "[b] 3")
            display._bars.refresh()
        display.line("line [/y]")
    assert "evaluate [/x]" in file.getvalue() and "[b] 3" in file.getvalue() and "line [/y]" in file.getvalue()


def test_what_moves_the_cursor_or_has_no_encoding_is_replaced():
    assert plain("caf\udce9\n\x1b[31m\u202eb\x85\u2028é猫") == "caf\ufffd\ufffd\ufffd[31m\ufffdb\ufffd\ufffdé猫"
    assert "caf�" in printed(table(["class"], [["caf\udce9"]]))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_lacks_a_character_shows_the_rest(encoding, monkeypatch, tmp_path):
    rows = [("猫 [small]", "0.7500"), ("naïve", "0.2500")]
    found = [Prediction("caf\udce9 猫.png", Answer(("class", "probability"), rows, {}))]
    monkeypatch.setattr(predict, "predict_run", lambda *_, **__: found)
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert command.main(["predict", str(tmp_path), "image.png"]) == 0
    sys.stdout.flush()
    text = raw.getvalue().decode(encoding)
    assert "[small]" in text and "0.7500" in text and "ve" in text
    assert ("猫 [small]" if encoding == "utf-8" else "? [small]") in text
    assert ("naïve" in text) == (encoding != "ascii")


def test_a_page_replaces_what_has_no_encoding(tmp_path):
    write_page(tmp_path / "page.html", "base.html", title="caf\udce9 [x]")
    assert "caf� [x]" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*NAMES, r"x$\frac{$", r"\$5", "$", "caf\udce9", "_"])
def test_a_figure_shows_a_name_as_it_is(name):
    lines = [{"split": "test", "step": step, "loss": 1.0, "accuracy": 0.5} for step in (1, 2)]
    figure = curves({name: lines})
    figure.savefig(io.BytesIO(), format="svg")
    (label,) = figure.axes[-1].get_legend().get_texts()
    assert shown(label) == f"{plain(name)} test"
    axes = Figure().subplots()
    axes.set(xlabel=in_figure(name))
    assert shown(axes.xaxis.label) == plain(name)


def shown(text):
    """What matplotlib draws for a label."""
    drawn, mathematics = text._preprocess_math(text.get_text())
    assert not mathematics
    return drawn.removeprefix("\N{WORD JOINER}")
