"""Distillation: the soft loss is the paper's, the teacher stays as it is and sees the student's view."""

import dataclasses
import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as jc
from jaxcnn.errors import UserError
from jaxcnn.runs.evaluation import evaluate_run
from jaxcnn.runs.initial_state import abstract_state
from jaxcnn.runs.replay import replay
from jaxcnn.runs.restore import load_run
from jaxcnn.runs.setup import make_plan
from jaxcnn.runs.teacher import check_teacher, load_frozen
from jaxcnn.tasks.objective import make_loss
from jaxcnn.tasks.task import TEACHER
from tests.compilation import quick
from tests.nets import TinyNet
from tests.runs.test_seeds import SHAPE, make, metrics, train

KEY = jax.random.key(0)


def taught_by(teacher, run=None, **fields):
    return jc.Classification(distillation=jc.Distillation(teacher, run, **fields))


def batch_of(count, classes=4):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *SHAPE), np.uint8)
    return {"image": images, "label": rng.integers(0, classes, count).astype(np.int32)}


@functools.cache
def variables_of(seed):
    return TinyNet().init(jax.random.key(seed), jnp.zeros((1, *SHAPE)), train=False, method="outputs")


def loss_of(task, batch, student=0, teacher=1):
    """(loss, sums, gradient) of a student that is TinyNet with the weights of one seed."""
    variables = variables_of(student)
    stats = {name: value for name, value in variables.items() if name != "params"}
    loss = make_loss(task, TinyNet(), jc.UNIT)
    step = quick(jax.value_and_grad(loss, has_aux=True))
    (value, (_, sums)), gradient = step(variables["params"], stats, {TEACHER: variables_of(teacher)}, batch, KEY)
    return float(value), jax.device_get(sums), gradient


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_the_soft_loss_is_pytorchs_divergence_times_the_squared_temperature(temperature):
    torch = pytest.importorskip("torch")
    student, teacher = np.random.default_rng(0).normal(0, 5, (2, 16, 10)).astype(np.float32)
    ours = jc.Distillation(TinyNet(), temperature=temperature).soft_losses(student, teacher).mean()
    soft = [torch.from_numpy(x / temperature) for x in (student, teacher)]
    theirs = torch.nn.functional.kl_div(
        soft[0].log_softmax(-1), soft[1].log_softmax(-1), log_target=True, reduction="batchmean"
    )
    np.testing.assert_allclose(ours, theirs.item() * temperature**2, rtol=1e-5)


def test_the_gradient_has_one_size_for_all_large_temperatures_and_none_flows_to_the_teacher():
    student, teacher = np.random.default_rng(0).normal(size=(2, 64, 10)).astype(np.float32)

    def mean(student, teacher, temperature):
        return jc.Distillation(TinyNet(), temperature=temperature).soft_losses(student, teacher).mean()

    sizes = [float(jnp.linalg.norm(jax.grad(mean)(student, teacher, t))) for t in (4.0, 8.0, 16.0, 32.0)]
    assert max(sizes) / min(sizes) < 1.05
    # Equation 4: for large T and logits of mean zero, (z - v) / N, for the mean over the batch.
    student, teacher = (x - x.mean(-1, keepdims=True) for x in (student, teacher))
    np.testing.assert_allclose(jax.grad(mean)(student, teacher, 1000.0), (student - teacher) / 10 / 64, atol=1e-5)
    task = taught_by(TinyNet(), weight=1.0)
    variables, batch = variables_of(0), batch_of(8)
    stats = {name: value for name, value in variables.items() if name != "params"}
    to_teacher = jax.grad(
        lambda teacher: make_loss(task, TinyNet(), jc.UNIT)(variables["params"], stats, {TEACHER: teacher}, batch, KEY)[
            0
        ]
    )(variables_of(1))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(to_teacher))


def test_the_weight_shares_the_loss_between_teacher_and_labels():
    batch = batch_of(8)
    parts = {weight: loss_of(taught_by(TinyNet(), weight=weight), batch) for weight in (0.0, 0.25, 1.0)}
    plain = loss_of(jc.Classification(), batch)
    assert parts[0.0][0] == plain[0]
    jax.tree.map(np.testing.assert_array_equal, parts[0.0][2], plain[2])
    np.testing.assert_allclose(parts[0.25][0], 0.75 * parts[0.0][0] + 0.25 * parts[1.0][0], rtol=1e-6)
    np.testing.assert_allclose(parts[1.0][1]["soft_loss"] / 8, parts[1.0][0], rtol=1e-6)


def test_the_teacher_is_in_evaluation_mode_and_sees_the_students_images():
    """With the batch's statistics what it says of an image would depend on the others."""
    batch = batch_of(8)
    distillation = jc.Distillation(TinyNet())
    seen = [
        distillation.teach(
            {TEACHER: variables_of(1)}, jnp.float32(images), jc.Outputs(jnp.zeros((len(images), 4)), {}), train=True
        ).losses
        for images in (batch["image"], batch["image"][:1])
    ]
    np.testing.assert_allclose(seen[0][:1], seen[1], rtol=1e-4)
    # A net that teaches itself, in evaluation, has nothing to learn from itself.
    images = jnp.float32(batch["image"]) / 255
    logits = TinyNet().apply(variables_of(1), images, train=False)
    taught = distillation.teach({TEACHER: variables_of(1)}, images, jc.Outputs(logits, {}), train=True)
    np.testing.assert_allclose(taught.losses, 0, atol=1e-5)


def quiet(seed=0, **fields):
    """An experiment without evaluation until its end."""
    data = dataclasses.replace(make(0).data, evaluation_splits=(), augment=(jc.HorizontalFlip(),))
    plain = {"data": data, "schedule": jc.Constant(), "ema": jc.EMA(), "duration": jc.steps(10)}
    return make(seed, **plain | {"log_every": jc.steps(1)} | fields)


def training(run):
    return [line for line in metrics(run) if line["split"] == "train"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The run of a net without batch norm, so that it says the same in training."""
    path = tmp_path_factory.mktemp("teacher") / "run"
    train([path], [quiet(model=TinyNet(norm=False))])
    return path


def test_a_student_learns_stops_resumes_and_is_evaluated_without_its_teacher(tmp_path, teacher):
    """Two seeds as one program; a student that starts as its teacher has nothing to learn from it, flipped or not."""
    lent = shutil.copytree(teacher, tmp_path / "teacher")
    task = taught_by(TinyNet(norm=False), str(lent), weight=1.0)
    same = quiet(model=TinyNet(norm=False), task=task, init_from=jc.InitFrom(str(teacher)), duration=jc.steps(2))
    train([tmp_path / "same"], [same])
    assert [abs(line["soft_loss"]) < 1e-5 for line in training(tmp_path / "same")] == [True, True]

    experiments = [quiet(task=task, seed=seed) for seed in (0, 1)]
    whole, stopped = ([tmp_path / name / str(seed) for seed in (0, 1)] for name in ("whole", "stopped"))
    for path in (*whole, *stopped):
        path.parent.mkdir(exist_ok=True)
    train(whole, experiments)
    asked = iter([False] * 6 + [True] + [False] * 100)
    outcomes, _ = train(stopped, experiments, lambda: next(asked))
    assert [outcome.state for outcome in outcomes] == ["preempted"] * 2
    train(stopped, experiments)
    for seed in (0, 1):
        lines = training(whole[seed])
        assert metrics(stopped[seed]) == metrics(whole[seed]) and lines[-1]["soft_loss"] < lines[0]["soft_loss"]
        assert TEACHER not in load_run(whole[seed]).state.stats

    said = replay(whole[0], 3)
    np.testing.assert_allclose(said["loss"], training(whole[0])[2]["soft_loss"], rtol=1e-5)
    shutil.rmtree(lent)  # what is measured of a student needs no teacher
    assert evaluate_run(whole[0])["test"] == pytest.approx(jc.load_run(whole[0]).result["test"], rel=1e-5)
    with pytest.raises(UserError, match="does not exist"):
        check_teacher(make_plan(experiments[0]))


def test_a_run_goes_on_with_the_teacher_that_it_began_with_alone(tmp_path, teacher):
    lent = shutil.copytree(teacher, tmp_path / "teacher")
    made = quiet(task=taught_by(TinyNet(norm=False), str(lent)))
    asked = iter([False] * 6 + [True] + [False] * 100)
    train([tmp_path / "run"], [made], lambda: next(asked))
    shutil.rmtree(lent)
    train([lent], [quiet(model=TinyNet(norm=False), seed=7)])
    for begun in (lambda: train([tmp_path / "run"], [made]), lambda: replay(tmp_path / "run", 7)):
        with pytest.raises(UserError, match="the teacher's weights are not those that the run began with"):
            begun()
    assert load_frozen(make_plan(quiet(task=taught_by(TinyNet()))))[1] is None  # other machines draw other last bits


def test_what_does_not_fit_a_teacher_is_one_sentence(tmp_path, teacher):
    fits = taught_by(TinyNet(norm=False), str(teacher))
    check_teacher(make_plan(quiet(task=fits)))
    for made, message in (
        (quiet(task=taught_by(TinyNet(), str(teacher))), r"bn1/\w+ of distillation.teacher is \[8\], and missing in"),
        (quiet(task=taught_by(TinyNet(width=4, norm=False), str(teacher))), "give the net of that run, load_run"),
        (quiet(task=taught_by(TinyNet(norm=False), str(teacher), averaged=True)), "keeps no average"),
        (quiet(task=taught_by(TinyNet(norm=False), str(tmp_path))), "is not a run directory"),
    ):
        with pytest.raises(UserError, match=message):
            check_teacher(make_plan(made))
    other = dataclasses.replace(quiet(task=fits).data, normalize=jc.IMAGENET)
    with pytest.raises(UserError, match=r"was trained with data.normalize .* give both the teacher's"):
        check_teacher(make_plan(quiet(task=fits, data=other)))
    with pytest.raises(UserError, match=r"the teacher's logits are \[16, 7\], the student's \[16, 4\]"):
        make_plan(quiet(task=taught_by(TinyNet(classes=7))))
    for fields, message in (
        ({"temperature": 0.0}, "temperature is 0.0; it must be positive"),
        ({"weight": 1.5}, r"weight is 1.5; it must be in \[0, 1\]"),
        ({"hint_weight": -1.0}, "hint_weight is -1.0"),
        ({"hints": ("stage1", "stage1")}, "distillation.hints is pairs .*, and 'stage1' is none"),
    ):
        with pytest.raises(UserError, match=message):
            jc.Distillation(TinyNet(), **fields)


def small_net(width, classes=4, aux=()):
    plain = jc.create_model("vgg11", classes=classes, width=width, stages=2, head=jc.GAP(classes=classes))
    return jc.Classifier(plain.backbone, plain.head, aux=dict(aux))


def test_hints_bring_the_students_map_to_the_teachers():
    """By a regressor that is no classifier: the auxiliary weight does not see it, and evaluation has none."""
    teacher = small_net(1 / 8)
    student = small_net(1 / 16, aux={"stage1": jc.HintRegressor(8)})
    task = taught_by(teacher, weight=0.0, hints=(("stage1", "stage1"),), hint_weight=1000.0)
    made = quiet(model=student, task=task, optimizer=jc.Adam(0.01), duration=jc.steps(8))
    plan = make_plan(made)
    state = abstract_state(plan.experiment, plan.mesh)
    assert state.params["aux_stage1"]["regressor"]["kernel"].shape == (1, 1, 4, 8)
    variables = student.init(KEY, jnp.zeros((1, *SHAPE)), train=False, method="outputs")
    frozen, _ = load_frozen(plan)
    batch = batch_of(4)
    images = jnp.float32(batch["image"]) / 255
    outputs = student.apply(variables, images, train=True, method="outputs", rngs={"dropout": KEY})
    wanted = teacher.apply(frozen[TEACHER], images, train=False, method="features")["stage1"]
    loss, _, _ = task.loss(
        student, {**variables, **frozen}, batch | {"image": images}, train=True, rngs={"dropout": KEY}
    )
    hard = jc.Classification().loss(
        student.clone(aux={}),
        {"params": {k: v for k, v in variables["params"].items() if k != "aux_stage1"}},
        batch | {"image": images},
        train=True,
        rngs={"dropout": KEY},
    )[0]
    expected = hard + 1000 * 0.5 * np.square(outputs.aux["stage1"] - wanted).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    for hints, message in (
        ((("stage2", "stage1"),), "the student has no auxiliary head 'stage2'; there is stage1"),
        ((("stage1", "stage9"),), "the teacher has no endpoint 'stage9'; there is stage1"),
        ((("stage1", "stage2"),), "they must be of one size"),
    ):
        wrong = taught_by(teacher, hints=hints)
        with pytest.raises(UserError, match=message):
            make_plan(quiet(model=student, task=wrong))


def test_pixels_that_do_not_count_teach_nothing():
    """And microbatches with other numbers of such pixels give the loss of the whole batch."""
    from tests.tasks.segmenters import Given

    teacher, rng = Given(3), np.random.default_rng(0)
    logits = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    mask = rng.integers(0, 3, (2, 4, 4)).astype(np.uint8)
    mask[0, :3] = 255
    task = jc.Segmentation(distillation=jc.Distillation(Twice(3), weight=1.0, temperature=2.0), auxiliary_weight=0.0)
    loss, _, sums = task.loss(
        teacher, {"params": {}, TEACHER: {}}, {"image": logits, "mask": mask}, train=True, rngs={}
    )
    soft = np.asarray(task.distillation.soft_losses(logits, 2 * logits))
    np.testing.assert_allclose(loss, soft[mask < 3].mean(), rtol=1e-5)
    np.testing.assert_allclose(task.metrics(jax.device_get(sums), {})["soft_loss"], loss, rtol=1e-5)


class Twice(TinyNet):
    """A teacher that is twice as sure."""

    def __call__(self, images, *, train):
        return 2 * images
