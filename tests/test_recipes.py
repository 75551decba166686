"""Recipes are those of the papers: counts, batches, lengths, decay, smoothing and rates at named steps.

The numbers of TABLE are from the papers and the code that the files of experiments/ name, for 1,281,167 images of
ImageNet (1,268,355 where a hundredth is held back) and 50,000 of CIFAR-10 (45,000), and are computed by none of ours.
"""

import csv
import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import jaxcnn as jc
from jaxcnn import experiment_file, flags, launch
from jaxcnn.data.preparation import transformed
from jaxcnn.runs import program
from jaxcnn.runs.batch_shapes import abstract_batch
from jaxcnn.runs.debug import debug
from jaxcnn.runs.fit_batch import fit_batch
from jaxcnn.runs.initial_state import abstract_state
from jaxcnn.runs.member import train_batches
from jaxcnn.runs.setup import make_plan
from jaxcnn.train.schedules import make_rate
from tests.docs import EXPERIMENTS, SHALLOW, choices
from tests.nets import TinyNet
from tests.slow import WANTED, slow
from tests.tiny_runs import ROOT, read

ARCHITECTURES = {
    row["name"]: int(row["parameters"])
    for row in csv.DictReader((ROOT / "tests" / "models" / "architectures.csv").open())
}
AUXILIARY = {"googlenet": 13_378_280, "inception_v3": 27_161_264}
"""Counts with the auxiliary heads, of which architectures.csv has the nets without."""
FREE = ("dtype", "kernel_init", "bias_init", "drop_path", "dropout", "conv_dropout", "epsilon", "decay", "padding")
"""Fields that change no shape of a parameter."""
IMAGENET, HELD_BACK, CIFAR, CIFAR_HELD_BACK = 1_281_167, 1_268_355, 50_000, 45_000


@dataclasses.dataclass(frozen=True)
class Row:
    """A recipe with these arguments of experiment(), and what its source says of it."""

    file: str
    arguments: Mapping[str, Any]
    net: str
    """The name in architectures.csv, or the number of parameters of a net that is not there."""
    batch: int
    steps: int
    decay: float
    rates: Mapping[int, float]
    """{step: learning rate}: the first, the end of the warm-up, before and after each milestone, the last."""
    smoothing: float = 0.0
    images: int = IMAGENET

    def __str__(self) -> str:
        return " ".join([self.file, *map(str, self.arguments.values())])

    @functools.cached_property
    def experiment(self) -> jc.Experiment:
        function = experiment_file.load_function(ROOT / "experiments" / f"{self.file}.py")
        return function(**self.arguments)


def rows() -> list[Row]:
    """Constant rates are of recipes that divide it when the validation figure stops improving."""
    thirds = {0: 0.1, 150_136: 0.1, 150_137: 0.01, 300_273: 0.01, 300_274: 0.001, 450_409: 0.001}
    found = [
        Row("alexnet_imagenet", {}, "alexnet", 128, 891_812, 5e-4, {0: 0.01, 891_811: 0.01}, images=HELD_BACK),
        *(
            Row(
                "zfnet_imagenet", {"variant": variant}, net, 128, 693_632, 5e-4, {0: 0.01, 693_631: 0.01},
                images=HELD_BACK,
            )
            for variant, net in (("base", "zfnet"), ("wide", "zfnet_wide"))
        ),
        *(
            Row(
                "vgg_imagenet", {"variant": variant}, net, 256, 366_634, 5e-4, {0: 0.01, 366_633: 0.01},
                images=HELD_BACK,
            )
            for variant, net in (
                ("A", "vgg11"), ("A-LRN", "vgg11_lrn"), ("B", "vgg13"), ("C", "vgg16_c"), ("D", "vgg16"), ("E", "vgg19")
            )
        ),
        Row(
            "googlenet_imagenet", {"recipe": "paper"}, "googlenet", 32, 10_000_000, 2e-4,
            {0: 0.01, 320_291: 0.01, 320_292: 0.0096, 640_584: 0.009216, 9_999_999: 0.00282103},
        ),
        Row(
            "googlenet_imagenet", {"recipe": "caffe"}, "googlenet", 32, 2_400_000, 2e-4,
            {0: 0.01, 1_800_000: 0.005, 2_399_999: 6.45497e-6},
        ),
        Row(
            "inception_imagenet", {"version": "v3"}, "inception_v3", 1600, 80_073, 4e-5,
            {0: 0.045, 1_600: 0.045, 1_601: 0.0423, 3_202: 0.039762, 80_072: 0.00203988}, 0.1,
        ),
        Row(
            "inception_imagenet", {"version": "v4"}, "inception_v4", 640, 320_292, 4e-5,
            {0: 0.045, 4_003: 0.045, 4_004: 0.0423, 8_008: 0.039762, 320_291: 0.000339088}, 0.1,
        ),
        *(
            Row(
                "resnet_imagenet", {"recipe": "paper", "depth": depth}, net, 256, 600_000, 1e-4,
                {0: 0.1, 599_999: 0.1}, images=HELD_BACK,
            )
            for depth, net in (
                (18, "resnet18"), (34, "resnet34"), (50, "resnet50_v1"), (101, "resnet101_v1"), (152, "resnet152_v1")
            )
        ),
        *(
            Row(
                "resnet_imagenet", {"recipe": recipe, "depth": depth}, f"resnet{depth}", batch, steps, decay, rates,
                smoothing,
            )
            for depth in (18, 34, 50, 101, 152)
            for recipe, batch, steps, decay, rates, smoothing in (
                ("torchvision-v1", 256, 450_410, 1e-4, thirds, 0.0),
                (
                    "torchvision-v2", 1024, 750_684, 2e-5,
                    {0: 7.992327e-5, 6_255: 0.5, 6_256: 0.5, 378_469: 0.25, 750_683: 0.0}, 0.1,
                ),
                (
                    "mlperf", 3264, 14_523, 5e-5,
                    {0: 0.01337580, 784: 10.5, 785: 10.5, 7_654: 2.625075, 14_522: 1.000556e-4}, 0.1,
                ),
            )
        ),
        *(
            Row(
                "resnet_strikes_back_imagenet", {"procedure": procedure}, "resnet50", 2048, steps, decay,
                {0: first, 3_127: peak, 3_128: peak, steps - 1: 0.0}, smoothing,
            )
            for procedure, steps, decay, first, peak, smoothing in (
                ("A1", 375_342, 0.01, 1.598465e-6, 5e-3, 0.1),
                ("A2", 187_671, 0.02, 1.598465e-6, 5e-3, 0.0),
                ("A3", 62_557, 0.02, 2.557545e-6, 8e-3, 0.0),
            )
        ),
        *(
            Row(
                "resnet_fast_imagenet", {"depth": 50, "epochs": epochs}, "resnet50", 4096, steps, 1e-4,
                {0: 2.715655e-3, 625: 1.7, 626: 1.7, steps - 1: last}, 0.1,
            )
            for epochs, steps, last in ((16, 5_005, 3.882165e-4), (88, 27_525, 6.319938e-5))
        ),
        *(
            Row(
                "resnet_fast_imagenet", {"depth": 18, "epochs": epochs}, "resnet18", 1024, steps, 5e-5,
                {0: 1.998401e-4, 2_501: 0.5, 2_502: 0.5, **rates}, 0.1,
            )
            for epochs, steps, rates in (
                (16, 20_018, {11_260: 0.25, 20_017: 2.854533e-5}),
                (24, 30_027, {}),
                (32, 40_036, {}),
                (40, 50_046, {}),
                (56, 70_064, {}),
                (88, 110_100, {}),
            )
        ),
        *(
            Row("densenet_imagenet", {"depth": depth}, f"densenet{depth}", 256, 450_410, 1e-4, thirds)
            for depth in (121, 161, 169, 201, 264)
        ),
        *(
            Row(
                "senet_imagenet", {"net": net}, net, 1024, 125_114, 1e-4,
                {
                    0: 0.6, 37_533: 0.6, 37_534: 0.06, 75_067: 0.06, 75_068: 0.006, 112_602: 0.006, 112_603: 6e-4,
                    125_113: 6e-4,
                },
                0.1 if net == "senet154" else 0.0,
            )
            for net in ("se_resnet50", "se_resnet101", "se_resnet152", "senet154")
        ),
        *(
            Row(
                "efficientnet_imagenet", {"net": f"b{number}"}, f"efficientnet_b{number}", 4096, 109_475, 1e-5,
                {
                    0: 1.636829e-4, 1_563: 0.256, 1_564: 0.2408704, 2_252: 0.2408704, 2_253: 0.2336443,
                    109_474: 0.003091302,
                },
                0.1,
            )
            for number in range(8)
        ),
        *(
            Row(
                "resnet_cifar10", {"depth": depth, "net": net}, f"resnet{depth}_cifar", 128, 64_000, 1e-4,
                {
                    **({0: 0.1} if depth < 110 else {0: 0.00025, 399: 0.1, 400: 0.1}),
                    31_999: 0.1, 32_000: 0.01, 47_999: 0.01, 48_000: 0.001, 63_999: 0.001,
                },
                images=CIFAR_HELD_BACK,
            )
            for depth in (20, 32, 44, 56, 110)
            for net in ("residual", "plain")
        ),
        *(
            Row(
                "densenet_cifar10", {"net": net, "augmentation": augmentation}, count, 64, 234_375, 1e-4,
                {0: 0.1, 117_187: 0.1, 117_188: 0.01, 175_780: 0.01, 175_781: 0.001, 234_374: 0.001},
                images=CIFAR,
            )
            for net, count in (
                ("40-12", "densenet40_k12_cifar"),
                ("100-12", "6979642"),
                ("100-24", "27249082"),
                ("bc-100-12", "densenet100_bc_k12_cifar"),
                ("bc-250-24", "15324406"),
                ("bc-190-40", "densenet190_bc_k40_cifar"),
            )
            for augmentation in ("standard", "none")
        ),
        *(
            Row(
                "wide_resnet_cifar10", {"net": net}, count, 128, 78_125, 5e-4,
                {
                    0: 0.1, 23_437: 0.1, 23_438: 0.02, 46_874: 0.02, 46_875: 0.004, 62_499: 0.004, 62_500: 8e-4,
                    78_124: 8e-4,
                },
                images=CIFAR,
            )
            for net, count in (("40-4", "8949210"), ("16-8", "10961370"), ("28-10", "36479194"))
        ),
        Row(
            "airbench_cifar10", {}, "1971640", 1024, 476, 0.00133043,
            {0: 0.01376147, 108: 1.5, 109: 1.5, 475: 0.1088011}, 0.2, CIFAR,
        ),
    ]  # fmt: skip
    return found


TABLE = rows()
SIZES: dict[str, tuple[int, int] | dict[Any, tuple[int, int]]] = {
    "alexnet_imagenet": (227, 256),
    "zfnet_imagenet": (224, 256),
    "vgg_imagenet": (224, 384),
    "googlenet_imagenet": (224, 224),
    "inception_imagenet": (299, 299),
    "resnet_imagenet": {
        "paper": (224, 256),
        "torchvision-v1": (224, 224),
        "torchvision-v2": (176, 224),
        "mlperf": (224, 224),
    },
    "resnet_strikes_back_imagenet": {"A1": (224, 224), "A2": (224, 224), "A3": (160, 224)},
    "resnet_fast_imagenet": (192, 256),
    "densenet_imagenet": (224, 224),
    "senet_imagenet": (224, 224),
    "efficientnet_imagenet": {
        f"b{number}": (side, side) for number, side in enumerate((224, 240, 260, 300, 380, 456, 528, 600))
    },
    "resnet_cifar10": (32, 32),
    "densenet_cifar10": (32, 32),
    "wide_resnet_cifar10": (32, 32),
    "airbench_cifar10": (32, 32),
}
"""Sides in training, and in evaluation before ten crops and the like."""
RECIPES = [file for file in EXPERIMENTS if file.stem in {row.file for row in TABLE}]


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_a_recipe_is_its_sources(row):
    experiment = row.experiment
    data, criterion = experiment.data, experiment.task.criterion
    assert data.batch_size == row.batch and experiment.accumulate == 1
    to_steps = lambda duration: duration.in_steps(row.images, row.batch)  # noqa: E731
    total = to_steps(experiment.duration)
    assert total == row.steps
    assert data.train_split == {HELD_BACK: "train[:99%]", CIFAR_HELD_BACK: "train[:90%]"}.get(row.images, "train")
    assert experiment.optimizer.weight_decay == pytest.approx(row.decay, rel=1e-5)
    assert criterion.label_smoothing == row.smoothing
    rate = make_rate(experiment.schedule, experiment.optimizer.learning_rate, total, to_steps)
    rates = jax.vmap(rate)(np.array([*row.rates]))
    np.testing.assert_allclose(rates, [*row.rates.values()], rtol=1e-5, atol=1e-12)
    assert isinstance(experiment.schedule, jc.Plateau) == (len(set(row.rates.values())) == 1)


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_a_recipes_transforms_make_the_sizes_of_its_sources_from_a_photo(row):
    data, sizes = row.experiment.data, SIZES[row.file]
    if isinstance(sizes, dict):
        (sizes,) = [sizes[value] for value in row.arguments.values() if value in sizes]
    photo = np.zeros((375, 500, 3) if row.file.endswith("_imagenet") else (32, 32, 3), np.uint8)
    for transforms, side, evaluated in ((data.augment, sizes[0], False), (data.preprocess, sizes[1], True)):
        made = transformed({"image": photo}, transforms, np.random.default_rng(0))["image"]
        assert made.shape == data.shape(evaluated=evaluated) == (side, side, 3)


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_a_recipes_net_has_the_papers_parameters(row):
    """Nets of the catalogue are counted in tests/models: here they must be those, but for what changes no shape."""
    model = row.experiment.model
    if not row.net.isdecimal() and "plain" not in row.arguments.values():
        named = jc.create_model(row.net)
        assert shaped_as(model.backbone, named.backbone) == named.backbone
        assert shaped_as(model.head, named.head) == named.head
        assert {end: shaped_as(head, named.aux[end]) for end, head in model.aux.items()} == dict(named.aux)
        if not WANTED:
            return
    elif "none" in row.arguments.values():  # the net of the row before, with dropout
        before = TABLE[TABLE.index(row) - 1]
        assert before.net == row.net and shaped_as(model.backbone, before.experiment.model.backbone) == (
            before.experiment.model.backbone
        )
        return
    elif {"100-24", "bc-250-24"} & {*row.arguments.values()} and not WANTED:
        pytest.skip("a net of 100 or 250 layers: with JAXCNN_SLOW_TESTS=1")
    wanted = int(row.net) if row.net.isdecimal() else AUXILIARY.get(row.net, ARCHITECTURES[row.net])
    assert count(model, row.experiment.data.image_shape) == wanted


def shaped_as(part: Any, named: Any) -> Any:
    """A part of a net with the fields of another that change no shape."""
    return part.clone(**{field: getattr(named, field) for field in FREE if hasattr(named, field)})


def count(model: Any, shape: tuple[int, ...]) -> int:
    images = jax.ShapeDtypeStruct((1, *shape), np.float32)
    init = functools.partial(model.init, train=False, method="outputs")
    params = jax.eval_shape(init, jax.random.key(0), images)["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_the_fast_recipe_trains_on_the_sizes_of_ffcvs_configurations():
    """resolution of rn50_configs and rn18_configs: from epoch `larger` on 192, the ramp's middle rounded up."""
    function = experiment_file.load_function(ROOT / "experiments" / "resnet_fast_imagenet.py")
    for epochs, larger in ((16, 12), (24, 19), (32, 25), (40, 32), (56, 45), (88, 71)):
        assert function(epochs=epochs).data.sizes == ((jc.epochs(0), 160), (jc.epochs(larger), 192))


def test_every_recipe_and_every_value_of_its_arguments_is_in_the_table():
    for file in RECIPES:
        listed = {value for chosen in choices(experiment_file.load_function(file)) for value in chosen[1::2]}
        given = {value for row in TABLE if row.file == file.stem for value in row.arguments.values()}
        assert listed - given == {"float32", "bfloat16"}, file.stem
        assert file.stem in SHALLOW or file.stem == "vgg_imagenet"
    others = {"vgg_cifar10", "fast_rcnn_voc", "faster_rcnn_voc", "fcn_voc", "yolo_voc"}
    named = {file.stem for file in EXPERIMENTS if file.stem.endswith(("_imagenet", "_cifar10", "_voc"))}
    assert named - {file.stem for file in RECIPES} == others | {"localize_tiny_imagenet"}


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_says_what_is_expected_and_that_it_is_not_run(file):
    doc = file.read_text().split('"""')[1]
    for part in ("Departures: ", "Data: ", "Command: ", "Expected: ", "Devices and hours: "):
        assert f"\n{part}" in doc, part
    for part in ("Expected: ", "Devices and hours: "):
        assert "ours: not run." in " ".join(doc.split(f"\n{part}")[1].split()), part


def test_the_page_of_recipes_has_every_file_and_claims_no_figure_of_ours():
    page = (ROOT / "docs" / "recipes.md").read_text()
    for file in RECIPES:
        assert f"(../experiments/{file.name})" in page, file.stem
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    figures = {row[-2].strip() for row in rows} - {"ours"}
    assert figures == {"not run"} and len(rows) > 60


# The first choices of all recipes are traced in tests/test_docs.py.
TRACED = [
    ("resnet_imagenet", "--recipe", "paper"),
    ("resnet_imagenet", "--recipe", "torchvision-v2"),
    ("resnet_imagenet", "--recipe", "mlperf"),
]


@pytest.mark.parametrize("file, flag, value", TRACED)
def test_a_recipe_with_its_other_choices_has_a_train_step_with_debug(file, flag, value):
    trace(ROOT / "experiments" / f"{file}.py", (flag, value, *SHALLOW[file]))


@slow
@pytest.mark.parametrize("row", TABLE, ids=str)
def test_every_recipe_has_a_train_step_with_debug_at_its_full_depth(row):
    given = [word for name, value in row.arguments.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    trace(ROOT / "experiments" / f"{row.file}.py", given)


def trace(file: pathlib.Path, given: Any) -> None:
    experiment = flags.parse(file, [*given, "--debug"]).experiment
    plan = make_plan(experiment)
    state = abstract_state(experiment, plan.mesh)
    step = program.train_step(experiment, plan.optimizer, plan.rate, plan.log_every)
    batch = abstract_batch(experiment, plan.mesh, experiment.data.batch_size, evaluated=False)
    after, figures = jax.eval_shape(step, state, {}, batch)
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), each) for each in (after, state)]
    assert shapes[0] == shapes[1] and figures["step_loss"].shape == () and plan.total == 6


@slow
@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_runs_with_debug(file, tmp_path):
    assert (launch.main(str(file), "--debug", "--workdir", str(tmp_path / "run")) or 0) == 0
    assert read(tmp_path / "run", "status.json") == {"state": "done", "step": 6}
    assert np.isfinite(read(tmp_path / "run", "result.json")["test"]["loss"])


def test_net_a_starts_the_deeper_ones_by_its_first_four_convolutions_and_its_fc_layers():
    """Simonyan & Zisserman 2015, section 3.1."""
    function = experiment_file.load_function(ROOT / "experiments" / "vgg_imagenet.py")
    shallow = paths(jc.create_model("vgg11"))
    taken = {f"conv{name}" for name in ("1_1", "2_1", "3_1", "3_2")} | {"fc6", "fc7", "fc8"}
    for variant in ("B", "C", "D", "E"):
        experiment = function(variant=variant, start="runs/vgg_a")
        deep = paths(experiment.model)
        chosen = {path for path in deep if experiment.init_from.takes(path)}
        assert {path.split("/")[2] for path in chosen} == taken and len(chosen) == 14
        assert {path: deep[path] for path in chosen} == {path: shallow[path] for path in chosen}
        assert experiment.model.backbone.kernel_init == experiment.model.head.kernel_init == "normal_0.01"
    assert function().init_from == jc.InitFrom() and function().model.backbone.kernel_init == "glorot_uniform"


def paths(model: Any) -> dict[str, tuple[int, ...]]:
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    params = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), images)["params"]
    return {f"params/{path}": leaf.shape for path, leaf in flatten_dict(params, sep="/").items()}


def test_repeated_augmentation_reaches_the_batches_of_a_run():
    data = jc.Data((8, 8, 3), jc.Synthetic((8, 8, 3), classes=4, train=64, test=4), "train", (), ("test",), repeats=3)
    plan = make_plan(jc.Experiment(jc.create_model("linear", classes=4), data))
    batches = train_batches(plan, plan.train, ())
    assert batches.repeats == 3 and len(set(batches.indices(0).tolist())) == 43  # of 128
    again = dataclasses.replace(plan.experiment, data=dataclasses.replace(data, repeats=0))
    assert train_batches(dataclasses.replace(plan, experiment=again), plan.train, ()).repeats == 1
    with pytest.raises(jc.UserError, match=r"data\.repeats is -1"):
        jc.Data((8, 8, 3), repeats=-1)
    for size in (3, 2):
        with pytest.raises(jc.UserError, match=rf"data\.repeats is 3 and data\.batch_size {size}: each batch would be"):
            dataclasses.replace(data, batch_size=size)
    # Smaller batches than the experiment's own are what --debug makes, and what fit-batch tries.
    large = jc.Data((144, 144, 3), data.source, "train", (), (), repeats=3, batch_size=8)
    assert debug(jc.Experiment(TinyNet(), large)).data.repeats == 0
    small = dataclasses.replace(plan.experiment, data=dataclasses.replace(data, batch_size=4))
    assert debug(small).data.repeats == 3
    assert fit_batch(small, 2**30).batch_size == 64
