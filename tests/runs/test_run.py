"""jc.train, jc.load_run, jc.evaluate and jc.predict, as a notebook calls them."""

import numpy as np
import pytest
from PIL import Image

import jaxcnn as jc


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    experiment = jc.Experiment(
        jc.create_model("linear", classes=10), jc.Data((8, 8, 1), batch_size=64), duration=jc.steps(40)
    )
    return jc.train(experiment, tmp_path_factory.mktemp("notebook") / "run", quiet=True)


def test_evaluate_gives_the_figures_of_the_training(run):
    found = jc.evaluate(run)
    assert found == {split: metrics for split, metrics in run.result.items() if split != "selection"}
    assert found.keys() == {"test", "train[90%:]"} and found["test"]["count"] == 355
    assert jc.evaluate(run.path, "test") == {"test": found["test"]}


def test_evaluate_counts_what_predict_answers(run):
    part = jc.Digits().open("test[:50]")
    answers = jc.predict(run, [part[i]["image"] for i in range(50)], top=1)
    right = [answer.classes[0][0] == run.classes[part[i]["label"]] for i, answer in enumerate(answers)]
    assert 0 < sum(right) < 50
    assert jc.evaluate(run, "test[:50]")["test[:50]"]["accuracy"] == pytest.approx(np.mean(right))


def test_predict_takes_a_directory_and_a_file(run, tmp_path):
    image = jc.Digits().open("test")[0]["image"]
    Image.fromarray(image[..., 0]).save(tmp_path / "digit.png")
    (answer,) = jc.predict(str(run.path), tmp_path / "digit.png", top=3)
    assert answer.image.endswith("digit.png") and len(answer.classes) == 3
    assert answer.classes == jc.predict(run, image, top=3)[0].classes


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda run: jc.evaluate(run, "tset"), "did you mean 'test'"),
        (lambda run: jc.evaluate({"path": 1}), "not dict"),
        (lambda run: jc.evaluate(run.path.parent / "none"), "none"),
        (lambda run: jc.predict(run, []), "is empty"),
        (lambda run: jc.predict(run, np.zeros((8, 8, 1))), "float64"),
        (lambda run: jc.predict(run, "no.png"), "no.png cannot be read"),
    ],
)
def test_mistakes_are_sentences(run, call, message):
    with pytest.raises(jc.UserError, match=message):
        call(run)
