"""An example is checked where it enters a batch, Memory or `jaxcnn data check`: one rule, a name and a remedy."""

import dataclasses
import pickle
import re

import numpy as np
import pytest

from jaxcnn.data.examples import BrokenExample
from jaxcnn.data.fields import LABEL, with_image
from jaxcnn.data.memory import Memory, load
from jaxcnn.data.pipeline import EvaluationBatches, TrainBatches
from jaxcnn.data.survey import check
from jaxcnn.data.transforms import CenterCrop, HorizontalFlip, PadAndCrop, RandomCrop, Resize
from jaxcnn.errors import UserError

GOOD = np.zeros((8, 8, 3), np.uint8)
FIELDS = with_image(GOOD.shape, LABEL)


class Given:
    """A source as a person would write it, of the examples that it is given."""

    name, version, split = "given", "1", "train"

    def __init__(self, *examples, classes="ab"):
        self.examples, self.classes = examples, tuple(classes)

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, i):
        return self.examples[i]

    def where(self, i):
        return f"given[{i}]"


class Counted(Given):
    """Remembers in `read` which of them were asked for."""

    def __init__(self, *examples, **options):
        super().__init__(*examples, **options)
        self.read = []

    def __getitem__(self, i):
        self.read.append(i)
        return super().__getitem__(i)


def of(image, label=0):
    return {"image": image, "label": label}


def into_training(examples, transforms=(), tolerated=0):
    made = TrainBatches(examples, transforms, FIELDS, len(examples), 0, tolerated)
    return made[0]


def into_evaluation(examples, transforms=(), tolerated=0):
    return EvaluationBatches(examples, transforms, FIELDS, len(examples), tolerated)[0]


def into_memory(examples, transforms=(), tolerated=0):
    loaded, rest = load(examples, transforms, FIELDS, 2**30, tolerated)
    return into_training(loaded, rest, tolerated)


def into_check(examples, transforms=(), tolerated=0):
    for error in check(examples, transforms, FIELDS)[tolerated:]:
        raise error


EVERYWHERE = [into_training, into_evaluation, into_memory, into_check]

MISTAKES = {
    "floats": (of(GOOD / 255.0), "float64 [8, 8, 3], from 0.0 to 0.0.*(255 * image).round().astype(np.uint8)"),
    "half": (of(GOOD.astype(np.float16)), "astype(np.uint8)"),
    "bool": (of(GOOD > 3), "255 * image.astype(np.uint8)"),
    "int64": (of(GOOD.astype(np.int64)), "return image.astype(np.uint8)"),
    "grey": (of(GOOD[..., 0]), "uint8 [8, 8].*image[..., None]"),
    "batch": (of(GOOD[None]), "uint8 [1, 8, 8, 3]"),
    "empty": (of(GOOD[:0]), "uint8 [0, 8, 3]"),
    "list": (of(GOOD.tolist()), "a list of 8, .*np.asarray(image)"),
    "tuple": ((GOOD, 1), 'the source returned a tuple of 2, .*a dict with "image"'),
    "keys": ({"x": GOOD, "y": 1}, "the source returned a dict of x, y, but"),
    "name": (of(GOOD, "b"), "the label is str b, but a label is a whole number in [0, 2)"),
    "float label": (of(GOOD, 1.0), "the label is float 1.0"),
    "one-hot": (of(GOOD, np.array([0, 1])), "array of int64 [2]"),
}


def pattern(text):
    return ".*".join(re.escape(part) for part in text.split(".*"))


@pytest.mark.parametrize("enter", EVERYWHERE)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_of_the_source_is_named_with_its_remedy_and_never_tolerated(mistake, enter):
    example, text = MISTAKES[mistake]
    with pytest.raises(UserError, match=r"given\[1\]: .*" + pattern(text)) as raised:
        enter(Given(of(GOOD), example), tolerated=2)
    assert not isinstance(raised.value, BrokenExample)


@pytest.mark.parametrize("enter", EVERYWHERE)
@pytest.mark.parametrize("label", [2, np.int64(7), -1])
def test_a_label_that_names_no_class(label, enter):
    examples = Given(of(GOOD, 1), of(GOOD, label))
    advice = "labels count from 0" if label > 0 else ""
    with pytest.raises(BrokenExample, match=rf"given\[1\]: label {label} is outside \[0, 2\).*{advice}"):
        enter(examples)
    enter(examples, tolerated=1)


@pytest.mark.parametrize("label", [0, 1, np.int32(1), np.uint8(1), np.array(1), True])
def test_whole_numbers_of_every_kind_are_labels(label):
    examples = Given(of(GOOD, label), of(GOOD))
    for batch in (into_training(examples), into_evaluation(examples), into_memory(examples)):
        assert sorted(batch["label"]) == [0, int(label)] and batch["label"].dtype == np.int32
    assert check(examples) == []


@pytest.mark.parametrize("enter", EVERYWHERE)
@pytest.mark.parametrize(
    "transforms, text",
    [
        ((CenterCrop(8),), "given[1]: CenterCrop(size=8): the image of 7 x 9 (height x width) is smaller"),
        ((HorizontalFlip(), RandomCrop(8)), "given[1]: RandomCrop(size=8): the image of 7 x 9"),
        ((PadAndCrop(0, 8),), "given[1]: PadAndCrop("),
        ((), "given[1]: the image is (7, 9, 3), but data.image_shape is (8, 8, 3)"),
        ((HorizontalFlip(),), "given[1]: the image is (7, 9, 3) and after the transforms (7, 9, 3)"),
    ],
)
def test_an_image_that_the_transforms_do_not_take_is_a_broken_one(transforms, text, enter):
    examples = Given(of(GOOD), of(np.ones((7, 9, 3), np.uint8)), of(GOOD))
    with pytest.raises(BrokenExample, match=re.escape(text)) as raised:
        enter(examples, transforms)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)  # as from a worker
    batch = enter(examples, transforms, 1)
    if batch is not None:
        np.testing.assert_array_equal(batch["broken"], batch["index"] == 1)
        np.testing.assert_array_equal(batch["valid"], True if enter is not into_evaluation else batch["index"] != 1)
        assert not batch["image"].any()


def test_what_was_passed_over_can_be_asked_for_with_the_draws_that_it_had():
    @dataclasses.dataclass(frozen=True)
    class Sometimes:
        def __call__(self, image, rng):
            if rng.random() < 0.3:
                raise UserError(f"drew {rng.random()}")
            return image

    examples = Given(*[of(GOOD)] * 40)
    made = TrainBatches(examples, (Sometimes(),), FIELDS, 20, 0, 10, process=1, processes=2)
    for step in (0, 3):
        batch = made[step]
        assert 0 < batch["broken"].sum() < 10
        causes = {}
        for _ in range(2):
            errors = made.broken(step, batch)
            assert [error.index for error in errors] == batch["index"][batch["broken"]].tolist()
            causes |= {error.cause: error for error in errors}
        assert len(causes) == batch["broken"].sum()
    made = EvaluationBatches(examples, (Sometimes(),), FIELDS, 40, 40)
    indices = made[0]["index"][made[0]["broken"]]
    assert [error.index for error in made.broken(indices)] == indices.tolist() and 3 < len(indices) < 25


def test_channels_have_a_remedy_of_their_own():
    with pytest.raises(UserError, match=r"\(8, 8, 1\), but data.image_shape is \(8, 8, 3\); .*channels=3"):
        into_training(Given(of(GOOD[..., :1])))


def test_a_transform_that_returns_floats_is_named():
    @dataclasses.dataclass(frozen=True)
    class ToFloat:
        def __call__(self, image, rng):
            return image / 255

    for enter in (into_training, into_evaluation, into_check):
        with pytest.raises(UserError, match=r"given\[0\]: after the transforms \(.*ToFloat.*float64.*uint8") as raised:
            enter(Given(of(GOOD)), (HorizontalFlip(), ToFloat()))
        assert not isinstance(raised.value, BrokenExample)


def test_the_examples_of_a_source_are_not_changed_by_reading_them():
    kept = of(GOOD)
    loaded, _ = load(Given(kept), (Resize(4),), FIELDS, 2**30)
    assert isinstance(loaded, Memory) and loaded.arrays["image"].shape == (1, 4, 4, 3)
    assert kept["image"] is GOOD


def test_the_check_reads_every_example_once_and_keeps_the_order():
    examples = Counted(*(of(GOOD, i % 3) for i in range(300)))
    assert [error.index for error in check(examples)] == list(range(2, 300, 3))
    assert sorted(examples.read) == list(range(300))


def test_a_set_of_which_nothing_fits_is_not_searched_through():
    examples = Counted(*[of(GOOD, 5)] * 500)
    with pytest.raises(BrokenExample):
        into_training(examples, tolerated=3)
    assert len(examples.read) == 4
