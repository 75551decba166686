"""Balanced sampling is a pure function of the seed and the position, with exact shares of classes and of images."""

import dataclasses
import itertools
import pickle

import numpy as np
import pytest

import jaxcnn as jc
from jaxcnn import UserError
from jaxcnn.data.fields import LABEL, with_image
from jaxcnn.data.pipeline import TrainBatches
from jaxcnn.data.sampling import BalancedOrder
from jaxcnn.runs.debug import debug
from jaxcnn.runs.member import train_batches
from jaxcnn.runs.setup import make_plan
from tests.nets import TinyNet

LABELS = np.repeat([0, 1, 2, -1], [31, 5, 2, 3])[np.random.default_rng(0).permutation(41)]
CLASSES = ("a", "b", "c")


@dataclasses.dataclass(frozen=True)
class Lopsided:
    """Made-up images of three classes of which the last one is rare, and labels that no attribute tells."""

    mask: bool = False

    def open(self, split, data_dir=None):
        return LopsidedExamples(jc.Synthetic((9, 9, 3), 3, train=40, test=4, parts=("mask",)).open(split), self.mask)


class LopsidedExamples:
    name, version, classes = "lopsided", "1", CLASSES

    def __init__(self, examples, mask):
        self.examples, self.split, self.mask = examples, examples.split, mask

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, i):
        example = self.examples[i]
        return example if self.mask else {"image": example["image"], "label": rare(i)}

    def where(self, i):
        return self.examples.where(i)


def rare(i):
    return 2 if i % 11 == 3 else i % 2


@pytest.mark.parametrize("weights", [(), (1, 2, 4), (1, 0, 0.1)])
def test_classes_have_their_shares_and_images_of_a_class_equal_parts(weights):
    order = jc.Balanced(weights).order(LABELS, CLASSES)
    shares = np.array(weights or (1, 1, 1), float) / sum(weights or (1, 1, 1))
    for epochs in (1, 2, 7):
        counts = np.bincount(order.indices(5, 0, 41 * epochs), minlength=41)
        of_class = np.array([counts[k == LABELS].sum() for k in range(3)])
        assert (np.abs(of_class - shares * 41 * epochs) < 1).all() and of_class.sum() == 41 * epochs
        assert counts[LABELS == -1].sum() == 0
        for k in range(3):
            assert np.ptp(counts[k == LABELS]) <= 1


def test_it_is_a_pure_function_of_seed_and_position():
    order = jc.Balanced().order(LABELS, CLASSES)
    whole = order.indices(3, 0, 200)
    cuts = [0, 1, 40, 41, 42, 130, 200]
    again = pickle.loads(pickle.dumps(order))  # as a worker process gets it
    parts = [again.indices(3, *span) for span in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert (order.indices(4, 0, 200) != whole).mean() > 0.5
    assert (whole[:41] != whole[41:82]).mean() > 0.5
    # Shuffled within an epoch: the classes do not stand in blocks.
    assert (np.diff(LABELS[whole[:41]]) != 0).sum() > 15


def test_a_set_with_fewer_images_than_classes_is_balanced_over_several_epochs():
    order = BalancedOrder(np.array([0, 1, 2]), (1.0, 1.0, 1.0, 0.0))
    assert sorted(order.indices(0, 0, 3)) == [0, 1, 2]
    uneven = BalancedOrder(np.array([0, 1, 2, 0]), (5.0, 4.0, 1.0))
    assert uneven.block == 12
    for blocks in range(1, 6):
        counts = np.bincount(uneven.indices(0, 0, 12 * blocks), minlength=4)
        assert (np.abs(counts[[0, 1, 2]] + [counts[3], 0, 0] - np.array([6, 4.8, 1.2]) * blocks) < 1).all()


def test_batches_are_the_same_for_any_number_of_processes():
    examples = jc.Synthetic(image_shape=(4, 4, 3), classes=4, train=41).open("train")
    order = jc.Balanced((1, 2, 1, 1)).order(np.array([examples[i]["label"] for i in range(41)]), examples.classes)
    made = TrainBatches(examples, (), with_image((4, 4, 3), LABEL), 12, seed=3, order=order)
    halves = [dataclasses.replace(made, process=p, processes=2)[5] for p in (0, 1)]
    np.testing.assert_array_equal(np.concatenate([half["index"] for half in halves]), made[5]["index"])
    np.testing.assert_array_equal(made[5]["index"], order.indices(3, 60, 72))
    np.testing.assert_array_equal(made[5]["label"], [examples[i]["label"] for i in made[5]["index"]])


def experiment(sampling, mask=False, **fields):
    data = jc.Data((9, 9, 3), Lopsided(mask), "train", ("validation",), sampling=sampling, batch_size=30)
    return jc.Experiment(TinyNet(classes=3), data, **fields)


def test_a_run_trains_in_this_order_with_labels_that_have_to_be_read():
    plan = make_plan(experiment(jc.Balanced(), seed=7))
    batches = train_batches(plan, plan.train, ())
    labels = np.array([rare(i) for i in range(40)])
    for step in range(3):
        np.testing.assert_array_equal(batches.indices(step), plan.order.indices(7, 30 * step, 30 * step + 30))
    counts = np.bincount(labels[np.concatenate([batches.indices(step) for step in range(4)])])
    assert counts.tolist() == [40, 40, 40] and np.bincount(labels).tolist() == [18, 18, 4]
    assert make_plan(debug(experiment(jc.Balanced((1, 2, 3))))).order is not None


def test_mistakes_are_one_sentence():
    for wrong, message in (
        (lambda: jc.Balanced((1, -1)), "weights has -1"),
        (lambda: jc.Balanced((0, 0)), "one at least must be above 0"),
        (lambda: jc.Balanced((1, 2)).order(LABELS, CLASSES), "2 entries, but there are 3 classes"),
        (lambda: jc.Balanced((1, 1, 1)).order(LABELS % 2, CLASSES), "no image of c to sample; give it the weight 0"),
        (lambda: jc.Balanced((1, 1e-12, 1)).order(LABELS, CLASSES), r"a class has 5.0e-13 of the images"),
        (
            lambda: make_plan(experiment(jc.Balanced(), True, task=jc.Segmentation())),
            "data.sampling goes by labels, and the task reads none",
        ),
    ):
        with pytest.raises(UserError, match=message):
            wrong()
