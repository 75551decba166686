"""Batches are a pure function of (seed, step): the same for any number of processes, workers and starts."""

import dataclasses
import threading

import numpy as np
import pytest

from jaxcnn.data.colors import Noise
from jaxcnn.data.draws import AUGMENTATION, Draws
from jaxcnn.data.examples import BrokenExample
from jaxcnn.data.fields import LABEL, with_image
from jaxcnn.data.memory import Memory, load
from jaxcnn.data.pipeline import EvaluationBatches, TrainBatches, iterate, permutation, shuffled_indices
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.data.transforms import CenterCrop, HorizontalFlip, Pad, PadAndCrop
from jaxcnn.errors import UserError

SHAPE = (8, 8, 3)
FIELDS = with_image(SHAPE, LABEL)
SOURCE = Synthetic(image_shape=SHAPE, classes=4, train=50, test=23)
AUGMENT = (PadAndCrop(2), HorizontalFlip(), Noise(3.0))
FROZEN_ORDER = [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """The draws themselves in place of the image: what the order of examples cannot make differ."""

    def __call__(self, image, rng):
        return rng.integers(0, 256, image.shape, np.uint8)


class Damaged:
    """Examples of which some cannot be read."""

    name, version, split, classes = "damaged", "1", "train", tuple("abcd")

    def __init__(self, examples, bad):
        self.examples, self.bad = examples, set(bad)

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, i):
        if i in self.bad:
            raise BrokenExample(i, self.where(i), "made so")
        return self.examples[i]

    def where(self, i):
        return f"damaged[{i}]"


def batches(**fields):
    made = TrainBatches(SOURCE.open("train"), AUGMENT, FIELDS, 12, seed=3)
    return dataclasses.replace(made, **fields)


def equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_every_epoch_is_a_permutation_and_each_is_another():
    orders = [permutation(7, epoch, 1000) for epoch in range(3)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(permutation(8, 0, 1000), orders[0])


def test_the_order_is_frozen():
    # A change here would break the resume of every stored run.
    assert permutation(0, 0, 10).tolist() == FROZEN_ORDER


def test_the_orders_of_large_seeds_differ():
    large = [permutation(seed, 0, 100).tobytes() for seed in (2**53 + 1, 2**53 + 2, 2**63 + 1, 2**63 + 2, 2**64 - 1)]
    assert len(set(large)) == len(large)


def test_the_draws_of_a_place_are_those_of_a_generator_made_for_it():
    draws = Draws(3 ^ AUGMENTATION)
    for place in (0, 1, 2**40, 1):  # in any order
        made = np.random.Generator(np.random.Philox(key=np.array([3 ^ AUGMENTATION, place], np.uint64)))
        placed = draws.at(place)
        for draw in ("random", "standard_normal"):
            assert getattr(placed, draw)() == getattr(made, draw)()
        # Half a word of 32 bits is left over, which the next place must not be given.
        assert placed.integers(2**20, dtype=np.uint32) == made.integers(2**20, dtype=np.uint32)
        np.testing.assert_array_equal(placed.permutation(4), made.permutation(4))


def test_the_draws_differ_for_every_pair_of_seeds_and_of_positions():
    made = batches(transforms=(Drawn(),), batch_size=2)
    # Seeds beside each other and across the range of an experiment's.
    seeds = [*range(1000), *range(2**31 - 500, 2**31 + 500), *range(2**32 - 500, 2**32)]
    drawn = [row.tobytes() for seed in seeds for row in dataclasses.replace(made, seed=seed)[7]["image"]]
    assert len(set(drawn)) == len(drawn) == 2 * len(seeds)


def test_the_stream_crosses_epochs_without_a_gap():
    stream = shuffled_indices(0, 50, 0, 150)
    for epoch in range(3):
        np.testing.assert_array_equal(np.sort(stream[50 * epoch : 50 * epoch + 50]), np.arange(50))
    np.testing.assert_array_equal(shuffled_indices(0, 50, 45, 103), stream[45:103])


@pytest.mark.parametrize("repeats", [2, 3, 5])
def test_repeats_hold_every_image_of_the_stream_so_often_far_apart_and_augmented_anew(repeats):
    made = batches(transforms=(Drawn(),), repeats=repeats, batch_size=24)
    steps = 50 * repeats // 24  # within the first epoch
    rows = [made.indices(step) for step in range(steps)]
    stream = np.repeat(shuffled_indices(3, 50, 0, 50), repeats)[: 24 * steps]
    assert sorted(np.concatenate(rows)) == sorted(stream)
    for indices in rows:  # what mixes an image with the one before it, round the corner too, mixes two images
        assert (indices != np.roll(indices, 1)).all()
    views = [image.tobytes() for image in made[0]["image"]]
    assert len(set(views)) == len(views)
    parts = [dataclasses.replace(made, process=process, processes=4)[2] for process in range(4)]
    equal({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, made[2])


def test_a_batch_without_repeats_is_what_it_was():
    for step in (0, 3, 40):
        np.testing.assert_array_equal(batches().indices(step), shuffled_indices(3, 50, 12 * step, 12 * step + 12))


@pytest.mark.parametrize("transforms", [AUGMENT, (Drawn(),)])
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_processes_hold_consecutive_parts_of_the_same_global_batch(processes, transforms):
    made = batches(transforms=transforms)
    for step in (0, 4, 5):
        parts = [dataclasses.replace(made, process=p, processes=processes)[step] for p in range(processes)]
        equal({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, made[step])


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_the_start_do_not_change_the_batches(workers):
    made = batches(transforms=(*AUGMENT[:2], Drawn()))
    iterator = iterate(made, 3, workers=workers)
    for step in range(3, 9):
        equal(next(iterator), made[step])


def test_batches_of_indices_alone_are_the_same_and_start_no_thread():
    """Of a split that lies on the devices (runs/sender.py)."""
    examples, _ = load(SOURCE.open("train"), (), FIELDS, 2**20)
    whole, indices = (batches(examples=examples, transforms=(), fields=fields) for fields in (FIELDS, {}))
    before = threading.active_count()
    iterator = iterate(indices, 3)
    for step in range(3, 9):
        expected = {name: part for name, part in whole[step].items() if name not in FIELDS}
        equal(next(iterator), expected)
    assert threading.active_count() == before


def test_augmentation_differs_between_epochs_and_examples():
    equal(batches()[0], batches()[0])
    plain = batches(transforms=())
    by_index = {}
    for step in range(10):
        batch = batches()[step]
        for image, index, raw in zip(batch["image"], batch["index"], plain[step]["image"], strict=True):
            assert not np.array_equal(image, raw)
            assert not any(np.array_equal(image, seen) for seen in by_index.setdefault(int(index), []))
            by_index[int(index)].append(image)


def test_memory_gives_the_same_batches():
    examples = SOURCE.open("train")
    memory, rest = load(examples, AUGMENT, FIELDS, 2**20)
    assert isinstance(memory, Memory) and rest == AUGMENT
    for transforms in (AUGMENT, ()):
        equal(batches(transforms=transforms, examples=memory)[6], batches(transforms=transforms)[6])


def test_memory_applies_the_deterministic_front_of_the_transforms_once():
    transforms = (Pad(2), CenterCrop(10), HorizontalFlip(), Pad(1))
    memory, rest = load(SOURCE.open("train"), transforms, FIELDS, 2**20)
    assert rest == transforms[2:] and memory.arrays["image"].shape == (50, 10, 10, 3)
    plain = batches(transforms=transforms, fields=with_image((12, 12, 3), LABEL))
    equal(batches(transforms=rest, examples=memory, fields=with_image((12, 12, 3), LABEL))[1], plain[1])


def test_a_set_above_the_limit_or_of_many_shapes_is_not_loaded():
    examples = SOURCE.open("train")
    assert load(examples, AUGMENT, FIELDS, 50 * (8 * 8 * 3 + 4) - 1) == (examples, AUGMENT)

    class Many(Damaged):
        def __getitem__(self, i):
            example = self.examples[i]
            return example | {"image": example["image"][: 8 - (i == 49)]}

    many = Many(examples, ())
    assert load(many, (), FIELDS, 2**20) == (many, ())


@pytest.mark.parametrize("size", [1, 5, 23, 40])
@pytest.mark.parametrize("loaded", [False, True])
def test_evaluation_gives_every_example_once(size, loaded):
    examples = SOURCE.open("test")
    if loaded:
        examples, _ = load(examples, (), FIELDS, 2**20)
    made = EvaluationBatches(examples, (), FIELDS, size)
    seen = []
    for batch in iterate(made):
        assert batch["image"].shape == (size, *SHAPE)
        np.testing.assert_array_equal(batch["valid"], batch["index"] >= 0)
        for image, label, index in zip(*(batch[k][batch["valid"]] for k in ("image", "label", "index")), strict=True):
            np.testing.assert_array_equal(image, SOURCE.open("test")[int(index)]["image"])
            assert label == index % 4
            seen.append(index)
    assert seen == list(range(23))


@pytest.mark.parametrize("processes", [2, 4])
def test_evaluation_parts_over_processes(processes):
    made = EvaluationBatches(SOURCE.open("test"), (Drawn(),), FIELDS, 8)
    for k in range(len(made)):
        parts = [dataclasses.replace(made, process=p, processes=processes)[k] for p in range(processes)]
        equal({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, made[k])


def test_what_an_evaluation_draws_is_that_of_the_example_and_not_of_the_batch_nor_of_training():
    made = EvaluationBatches(SOURCE.open("test"), (Drawn(),), FIELDS, 8)
    drawn = np.concatenate([made[k]["image"] for k in range(3)])[:23]
    assert len({image.tobytes() for image in drawn}) == 23
    np.testing.assert_array_equal(dataclasses.replace(made, batch_size=23)[0]["image"], drawn)
    training = [
        image for seed in range(3) for image in batches(transforms=(Drawn(),), seed=seed, batch_size=24)[0]["image"]
    ]
    assert not {image.tobytes() for image in drawn} & {image.tobytes() for image in training}


@pytest.mark.parametrize("loaded", [False, True])
def test_a_broken_training_example_is_replaced_and_marked(loaded):
    examples = Damaged(SOURCE.open("train"), {3, 4})
    if loaded:
        examples, _ = load(examples, (), FIELDS, 2**20, tolerated=2)
        assert isinstance(examples, Memory) and sorted(examples.broken) == [3, 4]
    made = batches(examples=examples, transforms=(), tolerate_broken=2)
    marked = 0
    for step in range(5):
        batch = made[step]
        np.testing.assert_array_equal(batch["broken"], np.isin(batch["index"], [3, 4]))
        marked += batch["broken"].sum()
        for image, index in zip(batch["image"], batch["index"], strict=True):
            expected = SOURCE.open("train")[5 if index in (3, 4) else int(index)]["image"]
            np.testing.assert_array_equal(image, expected)
        assert batch["valid"].all()
    assert marked >= 2


@pytest.mark.parametrize("loaded", [False, True])
def test_a_broken_evaluation_example_is_not_valid(loaded):
    examples = Damaged(SOURCE.open("test"), {0, 22})
    if loaded:
        examples, _ = load(examples, (), FIELDS, 2**20, tolerated=2)
    rows = list(iterate(EvaluationBatches(examples, (), FIELDS, 10, tolerate_broken=2)))
    assert sum(int(batch["valid"].sum()) for batch in rows) == 21
    assert [int(i) for batch in rows for i in batch["index"][batch["broken"]]] == [0, 22]


def test_a_broken_example_is_named_where_none_is_tolerated():
    examples = Damaged(SOURCE.open("train"), {3})
    with pytest.raises(BrokenExample, match=r"damaged\[3\]: made so"):
        load(examples, (), FIELDS, 2**20)
    with pytest.raises(BrokenExample, match=r"damaged\[3\]: made so"):
        iterator = iterate(batches(examples=examples))
        for _ in range(5):
            next(iterator)


def test_more_broken_examples_than_tolerated():
    with pytest.raises(BrokenExample):
        load(Damaged(SOURCE.open("train"), {1, 2, 3}), (), FIELDS, 2**20, tolerated=2)
    every = Damaged(SOURCE.open("train"), range(50))
    with pytest.raises(UserError, match="not one of its 50"):
        batches(examples=every, tolerate_broken=50)[0]
    with pytest.raises(BrokenExample):
        batches(examples=every, tolerate_broken=49)[0]


def test_an_image_of_another_shape_is_named_with_its_remedy():
    with pytest.raises(UserError, match=r"synthetic/train\[\d+\].*data.image_shape is \(9, 9, 3\).*Resize"):
        batches(fields=with_image((9, 9, 3), LABEL))[0]
