"""What the README and docs claim: the first command, LeNet-5 on real data, and every stored number."""

import json
import os
import re
import statistics

import pytest

from tests.runs import ROOT, finish, metrics, read

README = (ROOT / "README.md").read_text()
ROWS = re.findall(
    r"^\| `([^`]+)` \| ([\d.]+) \| ([\d.]+) \| ([\d,]+) \| \[(\S+)\]\((\S+)\) \|$",
    (ROOT / "docs" / "results.md").read_text(),
    re.M,
)


def test_the_readmes_first_command_reaches_its_accuracy(tmp_path):
    command = README.split("```sh\n")[1].splitlines()[0].split(" && ")[1].split()
    assert command[:3] == ["python", "-m", "jaxcnn.launch"]
    finish(*command[3:], "--workdir", tmp_path / "run")
    result = read(tmp_path / "run", "result.json")["test"]
    assert result["accuracy"] >= 0.985 and result["count"] == 355


@pytest.mark.skipif(not os.environ.get("TFDS_DATA_DIR"), reason="TFDS_DATA_DIR not set: real-data test not run")
def test_lenet5_on_fashion_mnist_reaches_the_pytorch_figure(tmp_path):
    accuracies = []
    for seed in (0, 1):
        run = tmp_path / str(seed)
        finish(ROOT / "experiments" / "lenet_fashion_mnist.py", "--workdir", run, "--seed", seed)
        result = read(run, "result.json")["test"]
        assert result["count"] == 10_000
        accuracies.append(result["accuracy"])
        losses = [line["loss"] for line in metrics(run) if line["split"] == "train"]
        assert losses[-1] < 0.5 * losses[0]
    assert statistics.mean(accuracies) >= 0.890


def test_there_are_results():
    assert len(ROWS) >= 5


@pytest.mark.parametrize("command, accuracy, loss, count, name, link", ROWS, ids=[row[4] for row in ROWS])
def test_every_number_comes_from_its_stored_run(command, accuracy, loss, count, name, link):
    folder = ROOT / "docs" / link
    result = json.loads((folder / "result.json").read_text())["test"]
    assert f"{result['accuracy']:.4f}" == accuracy and f"{result['loss']:.4f}" == loss
    assert f"{result['count']:,}" == count
    config = json.loads((folder / "config.json").read_text())
    assert f"--seed {config['seed']}" in command or (config["seed"] == 0 and "--seed" not in command)
    file = re.search(r"experiments/\S+\.py", command)[0]
    assert (folder / "experiment.py").read_text() == (ROOT / file).read_text()
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["git"]["commit"] and not environment["git"]["dirty"]
    last = [line for line in metrics(folder) if line["split"] == "test"][-1]
    assert last["accuracy"] == result["accuracy"]


def test_every_file_that_the_readme_names_exists():
    for link in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert (ROOT / link).exists(), link
    for command in re.findall(r"jaxcnn\.launch (experiments/\S+\.py)", README):
        assert (ROOT / command).exists(), command


def test_the_readmes_example_is_an_experiment(tmp_path):
    file = tmp_path / "photos.py"
    file.write_text(README.split("```python\n")[1].split("```")[0])
    finish(file, "--debug", "--workdir", tmp_path / "run")
