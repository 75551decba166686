"""Progressive resizing: images of each size are made from the same draws, compiled ahead, and resumed to the bit."""

import dataclasses

import numpy as np
import pytest

import jaxcnn as jc
from jaxcnn import UserError
from jaxcnn.data.draws import AUGMENTATION, Draws
from jaxcnn.data.fields import LABEL, with_image
from jaxcnn.data.memory import Memory, load
from jaxcnn.data.pipeline import iterate
from jaxcnn.models import FC, create_model
from jaxcnn.runs.debug import debug
from jaxcnn.runs.fit_batch import fit_batch
from jaxcnn.runs.member import train_batches
from jaxcnn.runs.replay import replay
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.sizes import last
from tests.nets import TinyNet
from tests.runs.test_seeds import train
from tests.tiny_runs import assert_same_run, metrics

SOURCE = jc.Synthetic((12, 12, 3), classes=4, train=20, test=6)
SIZES = ((jc.epochs(0), 6), (jc.epochs(0.75), 8), (jc.steps(6), 6))


AUGMENT = (jc.Pad(1), jc.RandomResizedCrop(8), jc.HorizontalFlip())


def experiment(model=None, sizes=SIZES, augment=AUGMENT, **data):
    given = jc.Data((8, 8, 3), SOURCE, "train", (), preprocess=(jc.CenterCrop(8),), augment=augment, batch_size=5)
    return jc.Experiment(
        model or TinyNet(),
        dataclasses.replace(given, sizes=sizes, **data),
        duration=jc.steps(8),
        log_every=jc.steps(1),
        checkpoints=jc.Checkpoints(every=jc.steps(2)),
    )


def test_a_batch_has_the_size_of_its_step_and_the_draws_of_its_place():
    plan = make_plan(experiment())
    batches = train_batches(plan, plan.train, (jc.Pad(1),))
    shapes = [batch["image"].shape for _, batch in zip(range(8), iterate(batches), strict=False)]
    assert shapes == [(5, side, side, 3) for side in (6, 6, 6, 8, 8, 8, 6, 6)]
    for step, side in ((2, 6), (3, 8)):
        batch, draws = batches[step], Draws(plan.experiment.seed ^ AUGMENTATION)
        for row, index in enumerate(batch["index"]):
            rng, image = draws.at(5 * step + row), plan.train[int(index)]["image"]
            for transform in (jc.Pad(1), jc.RandomResizedCrop(side), jc.HorizontalFlip()):
                image = transform(image, rng)
            np.testing.assert_array_equal(batch["image"][row], image)
    made = experiment(sizes=SIZES[:2])  # what is done at the end of a run, such as an average's statistics
    late = train_batches(make_plan(made), plan.train, (jc.Pad(1),)).at_end()
    assert late[0]["image"].shape[1:] == (8, 8, 3) == last(made).data.image_shape
    np.testing.assert_array_equal(late[5]["image"], batches[5]["image"])
    halves = [dataclasses.replace(batches, batch_size=4, process=p, processes=2)[3]["image"] for p in (0, 1)]
    assert [half.shape for half in halves] == [(2, 8, 8, 3)] * 2


def test_images_in_memory_that_have_the_shape_of_a_batch_are_not_taken_as_they_are():
    made = experiment(source=jc.Synthetic((8, 8, 3), classes=4, train=20, test=6), augment=(jc.RandomResizedCrop(8),))
    plan = make_plan(made)
    memory, rest = load(plan.train, (), with_image((8, 8, 3), LABEL), 2**20)
    assert isinstance(memory, Memory) and rest == ()
    assert [train_batches(plan, memory, rest)[step]["image"].shape[1] for step in (0, 3)] == [6, 8]


def test_a_run_that_stops_between_two_changes_goes_on_to_the_same(tmp_path):
    _, shown = train([tmp_path / "whole"], [experiment()])
    for told in (
        "train step compiled: for 6x6, 8x8, ",
        "step 3: training images are 8x8",
        "step 6: training images are 6x6",
    ):
        assert told in shown
    # Neither does it matter whether images are in memory, where what does not change is done to them once.
    asked = iter([False] * 5 + [True] * 100)
    (stopped,), _ = train([tmp_path / "stopped"], [experiment(memory_limit=0)], lambda: next(asked))
    assert (stopped.state, stopped.step) == ("preempted", 4)
    train([tmp_path / "stopped"], [experiment()])
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
    # A step computed again from the experiment alone has the loss that the run logged.
    logged = {line["step"]: line["loss"] for line in metrics(tmp_path / "whole") if line["split"] == "train"}
    assert replay(tmp_path / "whole", 4)["loss"] == pytest.approx(logged[4], rel=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sizes": ((jc.epochs(1), 6),)}, r"begin at 0, with \(epochs\(0\), 6\), and not 1 epochs"),
        (
            {"sizes": ((jc.epochs(0), 6), (jc.steps(0), 8))},
            "8 begins at step 0, and 6, which stands before it, at step 0",
        ),
        ({"sizes": ((jc.epochs(0), 6), (jc.epochs(5), 8))}, "8 begins at step 20, and the run ends at step 8"),
        ({"sizes": ((jc.epochs(0), "6"),)}, "pairs of a duration and a side"),
        ({"augment": (jc.RandomCrop(9), jc.CenterCrop((8, 7)))}, r"such as RandomResizedCrop\(8\): its size is what"),
        ({"augment": (jc.CenterCrop(8),), "sizes": ((jc.epochs(0), 13),)}, r"data.sizes, 13: .* smaller"),
        (
            {"model": create_model("mlp", head=FC(classes=4, widths=(3,)))},
            "data.sizes, 6: the model does not take images of this size with the parameters that it has for those of",
        ),
    ],
    ids=range(7),
)
def test_sizes_that_cannot_be_are_refused_before_anything_is_compiled(fields, message):
    with pytest.raises(UserError, match=message):
        make_plan(experiment(**fields))


def test_fit_batch_refuses_a_net_that_does_not_take_the_sizes():
    with pytest.raises(UserError, match=r"data\.sizes, 6: the model does not take .*Shape"):
        fit_batch(experiment(create_model("linear", classes=4)), 2**30)


def test_debug_keeps_the_first_and_the_last_size_and_shrinks_them_with_the_images():
    small = debug(experiment())
    assert small.data.sizes == ((jc.steps(0), 6),)
    data = jc.Data(
        (320, 320, 3),
        jc.Synthetic((352, 352, 3), classes=4),
        augment=(jc.RandomResizedCrop(320),),
        preprocess=(jc.CenterCrop(320),),
        sizes=((jc.epochs(0), 160), (jc.epochs(8), 256), (jc.epochs(16), 320)),
    )
    made = make_plan(debug(jc.Experiment(TinyNet(), data))).experiment.data
    assert made.image_shape == (128, 128, 3) and made.sizes == ((jc.steps(0), 64), (jc.steps(2), 128))
