"""Evaluation against numpy, for batch sizes that divide and that do not; and its refusal to report a wrong count."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data.fields import LABEL, with_image
from jaxcnn.data.pipeline import EvaluationBatches
from jaxcnn.data.synthetic import Synthetic, SyntheticExamples
from jaxcnn.data.transforms import UNIT
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.runs import evaluation
from jaxcnn.runs.evaluation import Stopped, evaluate, evaluate_restored, evaluation_step, placed
from jaxcnn.runs.setup import fitted_evaluation, make_plan
from jaxcnn.tasks.classification import Classification
from jaxcnn.train.mesh import make_mesh
from tests.nets import TinyNet

SHAPE = (9, 9, 3)
EXAMPLES = Synthetic(image_shape=SHAPE, classes=7, test=23).open("test")
MODEL = TinyNet(classes=7)


@dataclasses.dataclass(frozen=True)
class TwoShort(Synthetic):
    """Images of which two are a row short, and so do not have SHAPE."""

    def open(self, split, data_dir=None):
        return TwoShortExamples(self, split)


class TwoShortExamples(SyntheticExamples):
    def __getitem__(self, i):
        example = super().__getitem__(i)
        return example | {"image": example["image"][1:]} if i in (3, 20) else example


def variables(seed):
    made = MODEL.init(jax.random.key(seed), jnp.zeros((1, *SHAPE)), train=False)
    return made["params"], {"batch_stats": made["batch_stats"]}


def figures(nets, batches, **keywords):
    experiment = Experiment(MODEL, Data(SHAPE))
    place = functools.partial(placed, experiment=experiment, mesh=make_mesh(), evaluated=True)
    found = evaluate(jax.jit(evaluation_step(experiment)), nets, iter(batches), EXAMPLES, place, **keywords)
    return [experiment.task.metrics(*each) for each in found]


def batches(size):
    made = EvaluationBatches(EXAMPLES, (), with_image(SHAPE, LABEL), size)
    return [made[k] for k in range(len(made))]


@pytest.mark.parametrize("size", [1, 4, 23, 50])
def test_metrics_do_not_depend_on_the_batch_size(size):
    nets = [variables(0), variables(1)]
    images = np.stack([EXAMPLES[i]["image"] for i in range(23)])
    labels = np.arange(23) % 7
    for (params, stats), result in zip(nets, figures(nets, batches(size)), strict=True):
        logits = np.asarray(MODEL.apply({"params": params, **stats}, UNIT(images), train=False), np.float64)
        losses = -(logits[np.arange(23), labels] - np.log(np.exp(logits).sum(1)))
        order = np.argsort(-logits, axis=1, kind="stable")
        top5 = np.mean([label in row[:5] for label, row in zip(labels, order, strict=True)])
        assert result["count"] == 23
        assert result["loss"] == pytest.approx(losses.mean(), rel=1e-5)
        assert result["accuracy"] == pytest.approx((order[:, 0] == labels).mean())
        assert result["top5"] == pytest.approx(top5)


@pytest.mark.parametrize(
    "change", [lambda all_batches: all_batches[:-1], lambda all_batches: [*all_batches, all_batches[0]]]
)
def test_a_batch_too_few_or_too_many_is_refused(change):
    with pytest.raises(RuntimeError, match="of 23 examples"):
        figures([variables(0)], change(batches(8)))


@pytest.mark.parametrize("tolerated, limit", [(1, 0), (2, 0), (1, 2**30), (2, 2**30)])
def test_a_saved_run_is_evaluated_on_images_of_which_few_cannot_be_used(tolerated, limit):
    source = TwoShort(image_shape=SHAPE, classes=7, test=23)
    data = Data(SHAPE, source, evaluation_batch_size=8, tolerate_broken=tolerated, memory_limit=limit)
    params, stats = variables(0)
    step = SimpleNamespace(call=jax.jit(evaluation_step(Experiment(MODEL, data))))
    state = SimpleNamespace(params=params, stats=stats, average=None)
    experiment = Experiment(MODEL, data)
    directory = SimpleNamespace(newest_start=dict)
    saved = SimpleNamespace(
        state=state, classes=EXAMPLES.classes, mesh=make_mesh(), experiment=experiment, directory=directory
    )
    if tolerated == 2:
        assert evaluate_restored(saved, experiment, ("test",), step)["test"]["count"] == 21
    else:
        with pytest.raises(UserError, match=r"(?s)synthetic/test\[20\].*\(8, 9, 3\).*data.image_shape"):
            evaluate_restored(saved, experiment, ("test",), step)


@pytest.mark.parametrize(
    "split, known, rows",
    [
        ("train[:3]", {}, 4),  # two devices
        ("test", {"test": 23, "train[90%:]": 30}, 30),  # as in training
        ("test", {}, 24),
        ("train", {}, 32),
    ],
)
def test_no_more_rows_are_computed_than_there_are_images(split, known, rows, monkeypatch):
    source = Synthetic(image_shape=SHAPE, classes=7, train=300, test=23)
    experiment = Experiment(MODEL, Data(SHAPE, source, evaluation_batch_size=32))
    params, stats = variables(0)
    restored = SimpleNamespace(
        state=SimpleNamespace(params=params, stats=stats, average=None),
        classes=EXAMPLES.classes,
        mesh=SimpleNamespace(size=2),
        experiment=experiment,
        directory=SimpleNamespace(newest_start=lambda: {"dataset": {"splits": known}}),
    )
    shapes = []

    def call(params, stats, frozen, batch):
        shapes.append(batch["image"].shape[0])
        return jax.jit(evaluation_step(experiment))(params, stats, frozen, batch)

    compiled, names = [], ("image", "label", "valid")
    step = SimpleNamespace(call=call)
    monkeypatch.setattr(evaluation, "compile_evaluation_step", lambda *args: compiled.append(args) or step)
    monkeypatch.setattr(evaluation, "placed", lambda batch, **_: {name: batch[name] for name in names})
    found = evaluate_restored(restored, experiment, (split,))[split]
    assert set(shapes) == {rows} and compiled[0][0].data.evaluation_batch_size == rows
    images = source.open(split.partition("[")[0], None)
    assert found["count"] == (3 if "[" in split else len(images))


def test_training_evaluates_in_batches_no_larger_than_its_largest_split():
    source = Synthetic(image_shape=SHAPE, classes=7, train=300, test=41)  # a tenth of 300 beside it
    experiment = Experiment(MODEL, Data(SHAPE, source))
    plan = make_plan(experiment)
    assert plan.experiment.data.evaluation_batch_size == 41 and experiment.data.evaluation_batch_size == 512
    eight = SimpleNamespace(size=8)
    assert fitted_evaluation(experiment, eight, [30, 23]).data.evaluation_batch_size == 32
    assert fitted_evaluation(experiment, eight, [600]) == fitted_evaluation(experiment, eight, [512]) == experiment
    with pytest.raises(UserError, match=r"data.evaluation_batch_size is 512, .* 3 devices"):
        fitted_evaluation(experiment, SimpleNamespace(size=3), [1])


def test_a_stop_is_seen_between_batches():
    asked = []
    with pytest.raises(Stopped):
        figures([variables(0)], batches(4), stop=lambda: asked.append(1) or len(asked) == 3)
    assert len(asked) == 3


@dataclasses.dataclass(frozen=True)
class Median(Classification):
    """With a metric that does not add up: the median of the images' largest logits."""

    def outputs(self, model, variables, batch):
        sums, _ = super().outputs(model, variables, batch)
        return sums, {"largest": model.apply(variables, batch["image"], train=False).max(-1)}

    def metrics(self, sums, records):
        return super().metrics(sums, records) | {"median": float(np.median(records["largest"]))}


@pytest.mark.parametrize("size", [4, 23, 50])
@pytest.mark.parametrize("seeds", [1, 2])
def test_records_are_those_of_the_valid_examples_in_the_order_of_the_split(size, seeds):
    experiment = Experiment(MODEL, Data(SHAPE), task=Median())
    nets = [variables(seed) for seed in range(seeds)]
    step, weights = evaluation_step(experiment), nets[0]
    if seeds > 1:
        step = jax.vmap(step, in_axes=(0, 0, None, None))
        weights = jax.tree.map(lambda *each: jnp.stack(each), *nets)
    place = functools.partial(placed, experiment=experiment, mesh=make_mesh(), evaluated=True)
    ((sums, records),) = evaluate(jax.jit(step), [weights], iter(batches(size)), EXAMPLES, place)
    images = UNIT(np.stack([EXAMPLES[i]["image"] for i in range(23)]))
    for number, (params, stats) in enumerate(nets):
        own = (sums, records) if seeds == 1 else jax.tree.map(lambda x, i=number: x[i], (sums, records))
        largest = MODEL.apply({"params": params, **stats}, images, train=False).max(-1)
        assert own[1].keys() == {"largest"} and own[1]["largest"].shape == (23,)
        np.testing.assert_allclose(own[1]["largest"], largest, rtol=1e-4, atol=1e-5)
        found = experiment.task.metrics(*own)
        assert found["median"] == pytest.approx(float(np.median(largest)), rel=1e-4) and found["count"] == 23
