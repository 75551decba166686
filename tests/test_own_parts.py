"""Parts of a user's own: what one lacks is named when the experiment is made; what is whole trains and is read back.

docs/own_parts.md has an example of each, which test_docs.py runs.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

import jaxcnn as jc
from jaxcnn import config, experiment_file
from jaxcnn.data.digits import Digits
from jaxcnn.data.splits import open_split
from jaxcnn.errors import UserError
from jaxcnn.models import FC, GAP
from jaxcnn.runs.restore import load_experiment
from jaxcnn.runs.run_directory import open_run
from jaxcnn.train.optimizers import Optax
from tests.docs import ROOT, Snippet, blocks


@dataclasses.dataclass(frozen=True)
class Nothing:
    pass


@dataclasses.dataclass(frozen=True)
class Builds:
    def build(self, rate):
        return optax.sgd(rate)


def make(data=None, **fields):
    return jc.Experiment(jc.create_model("linear", classes=10), jc.Data((8, 8, 1), **(data or {})), **fields)


@pytest.mark.parametrize(
    "data, fields, message",
    [
        ({"source": [1, 2]}, {}, r"data.source is a list, which lacks open\(split, data_dir=None\)"),
        ({"source": Digits}, {}, r"data.source is the class Digits; give an object of it: Digits\(\)"),
        ({"source": Nothing()}, {}, r"data.source is a Nothing, which lacks open"),
        ({"augment": Nothing()}, {}, r"data.augment is a Nothing; give a tuple, such as \(Nothing\(...\),\)"),
        ({"augment": (Nothing(),)}, {}, r"data.augment.0 is a Nothing, which lacks __call__\(image, rng\)"),
        (
            {"preprocess": (lambda image, rng: image,)},
            {},
            r"data.preprocess.0 is a function.*frozen dataclass with __call__",
        ),
        ({"normalize": Nothing()}, {}, r"data.normalize is a Nothing, which lacks __call__\(images\)"),
        (
            {},
            {"optimizer": Nothing()},
            r"optimizer is a Nothing, which lacks build\(rate\).*; and a float, the peak rate",
        ),
        ({}, {"optimizer": Builds()}, r"optimizer is a Builds, which lacks a float, the peak rate"),
        ({}, {"optimizer": optax.adam}, r"optimizer is a function, which lacks build"),
        (
            {},
            {"schedule": optax.constant_schedule(1.0)},
            r"schedule is a function, which lacks build\(total, to_steps\)",
        ),
        ({}, {"task": Nothing()}, r"task is a Nothing, which lacks .*; and loss\(model, variables, batch"),
    ],
)
def test_what_a_part_lacks_is_named_when_the_experiment_is_made(data, fields, message):
    with pytest.raises(UserError, match=message):
        make(data, **fields)


def test_what_a_net_lacks_is_named():
    with pytest.raises(UserError, match=r"model is a Dense, which lacks an int, the number of logits; and outputs\("):
        jc.Experiment(nn.Dense(10), jc.Data((8, 8, 1)))


@pytest.mark.parametrize(
    "criterion, message",
    [
        (Nothing(), r"task.criterion is a Nothing, which lacks __call__\(logits"),
        (optax.softmax_cross_entropy, r"task.criterion is a function.*frozen dataclass with __call__\(logits"),
    ],
)
def test_what_a_loss_lacks_is_named(criterion, message):
    with pytest.raises(UserError, match=message):
        jc.Classification(criterion)


@dataclasses.dataclass(frozen=True)
class Plain:
    def __call__(self, logits, labels):
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


@pytest.mark.parametrize("missing", ["where", "classes", "name", "version", "split", "__len__", "__getitem__"])
def test_what_a_source_opens_is_checked_too(missing):
    members = {"name": "n", "version": "1", "split": "train", "classes": ("a", "b")}
    members |= {"__len__": lambda self: 1, "__getitem__": lambda self, i: {}, "where": lambda self, i: "x"}
    del members[missing]
    opened = type("Opened", (), members)()
    source = dataclasses.make_dataclass("Mine", [], namespace={"open": lambda *_: opened}, frozen=True)()
    with pytest.raises(
        UserError, match=rf"what Mine.open\('train'\) returned is an Opened, which lacks .*{_word(missing)}"
    ):
        open_split(source, "train")


def _word(member):
    return {"name": "my_photos", "version": 'such as "1"', "split": "was given", "classes": "class names"}.get(
        member, member
    )


def test_an_optax_transformation_is_told_apart_in_words_that_are_the_same_at_each_start():
    described = {
        Optax.of(made).described
        for made in (
            optax.adam(1e-3),
            optax.adam(2e-3),
            optax.adamw(1e-3),
            optax.chain(optax.clip(1.0), optax.adam(1e-3)),
            optax.adam(optax.cosine_decay_schedule(1e-3, 100)),
            optax.adam(optax.cosine_decay_schedule(1e-3, 200)),
        )
    }
    assert len(described) == 6
    own = [optax.adam(rate) for rate in (lambda step: 1e-3, lambda step: 1e-1, lambda step: 1e-3)]
    own = [Optax.of(made).described for made in own]
    assert own[0] != own[1] and own[0] == own[2]  # what a function of one's own does counts, and not where it stands
    assert Optax.of(optax.adam(1e-3)) == Optax.of(optax.adam(1e-3)) and not any(" at 0x" in text for text in described)


def test_an_optax_transformation_updates_as_it_does_itself_times_the_schedule():
    params = {"w": np.float32(3.0)}
    adam = optax.adam(1e-2)
    built = Optax.of(adam).build(lambda step: 0.5 ** (step + 1))
    state, expected_state = built.init(params), adam.init(params)
    for step in range(3):
        update, state = built.update({"w": np.float32(1 + step)}, state, params)
        expected, expected_state = adam.update({"w": np.float32(1 + step)}, expected_state, params)
        assert float(update["w"]) == float(expected["w"]) * 0.5 ** (step + 1)


def test_a_run_with_an_optax_transformation_and_an_own_loss_is_whole(tmp_path):
    made = make(optimizer=optax.adam(1e-2), task=jc.Classification(Plain()), duration=jc.steps(20))
    run = jc.train(made, tmp_path / "run", quiet=True)
    assert run.result["test"]["accuracy"] > 0.3
    assert json.loads((tmp_path / "run" / "config.json").read_text())["optimizer"]["described"].startswith("chain(")
    again = jc.train(made, tmp_path / "run", quiet=True)  # done already
    assert again.result == run.result
    with pytest.raises(UserError, match=r"optimizer.described: .*-0.01.* there, .*-0.02.* now"):
        jc.train(dataclasses.replace(made, optimizer=optax.adam(2e-2)), tmp_path / "run", quiet=True)


def test_a_run_with_an_optax_transformation_is_read_without_it(tmp_path):
    run = jc.train(make(optimizer=optax.adam(1e-2), duration=jc.steps(5)), tmp_path / "run", quiet=True)
    read = jc.load_run(str(tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, read.variables, run.variables)
    remembered = load_experiment(open_run(tmp_path / "run"))
    assert remembered.optimizer.transformation is None
    assert config.encode(remembered) == config.encode(run.experiment)
    with pytest.raises(UserError, match="has words alone"):
        remembered.optimizer.build(lambda step: 1.0).update({}, {}, {})


def test_no_part_of_an_own_loss_gives_a_warning_or_is_no_flag(tmp_path, recwarn):
    from jaxcnn.flags import parse

    snippet = next(block for block in own_parts() if "class Focal" in block.code)
    (tmp_path / "focal.py").write_text(snippet.code)
    assert parse(tmp_path / "focal.py", ["--task.criterion.gamma", "1"]).experiment.task.criterion.gamma == 1
    assert not [warning for warning in recwarn if "tyro" in str(warning.filename)]


def own_parts():
    return [block for block in blocks(ROOT / "docs" / "own_parts.md") if isinstance(block, Snippet)]


def test_every_example_is_short_and_there_is_one_of_each_part():
    for snippet in own_parts():
        lines = [line for line in snippet.code.partition("def experiment")[0].splitlines() if line.strip()]
        assert 5 < len(lines) < 20
    text = "".join(snippet.code for snippet in own_parts())
    assert all(f"{part}=" in text for part in ("source", "augment", "optimizer", "schedule", "task", "head"))


def test_the_example_of_a_source_trains_on_it(tmp_path):
    (snippet,) = (block for block in own_parts() if "def open" in block.code)
    file = tmp_path / "stripes.py"
    file.write_text(snippet.code)
    made = dataclasses.replace(experiment_file.load_function(pathlib.Path(file))(), duration=jc.steps(30))
    result = jc.train(made, tmp_path / "run", quiet=True).result
    assert result["test"]["count"] == 100 and result["test"]["accuracy"] == 1.0


def test_a_head_of_ones_own_keeps_its_width_and_an_fc_head_of_the_table_takes_it():
    assert jc.create_model("vgg11", width=0.125).head.widths == (512, 512)
    assert jc.create_model("vgg11", width=0.125, widths=(7, 9)).head.widths == (7, 9)
    own = FC(classes=3, widths=(40,), names=("a", "b"), kernel_init="lecun_uniform")
    model = jc.create_model("vgg11", width=0.125, head=own, dtype="bfloat16", kernel_init="glorot_uniform")
    assert model.head == own.clone(dtype="bfloat16") and model.backbone.width == 0.125
    assert jc.create_model("vgg11", classes=5, head=GAP(classes=10, dropout=0.1), dropout=0.2).head.dropout == 0.2


def test_a_name_may_first_be_used_while_a_net_is_called():
    """The heads that are made when jaxcnn.models is imported do not become parts of the net that is being called."""
    code = """
import flax.linen as nn, jax, jax.numpy as jnp
import jaxcnn as jc

class Small(nn.Module):
    @nn.compact
    def __call__(self, images, *, train):
        return nn.Dense(3)(images.mean((1, 2)))

    def outputs(self, images, *, train):
        return jc.Outputs(self(images, train=train), {})

variables = Small().init(jax.random.key(0), jnp.zeros((2, 8, 8, 1)), train=False, method="outputs")
assert list(variables["params"]) == ["Dense_0"], variables
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
