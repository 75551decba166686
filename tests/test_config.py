"""Every experiment survives the way to JSON and back, and differences are found by field."""

import dataclasses
import json
import pathlib

import jax.numpy as jnp
import pytest

from jaxcnn import MODELS, create_model
from jaxcnn.config import (
    changes,
    class_name,
    classes,
    decode,
    differences,
    encode,
    flatten,
    set_data_paths,
    upgraded,
    upgraded_flat,
)
from jaxcnn.data import transforms
from jaxcnn.data.box_rules import BoxRules
from jaxcnn.data.composed import ComposedCutouts
from jaxcnn.data.digits import Digits
from jaxcnn.data.folder import Folder
from jaxcnn.data.label_table import LabelTable
from jaxcnn.data.paired_folders import PairedFolders
from jaxcnn.data.tfds import Tfds
from jaxcnn.data.transforms import HorizontalFlip, Pad
from jaxcnn.data.voc import VOCSegmentation
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.flags import parse
from jaxcnn.tasks import classification, losses
from jaxcnn.train import averages, optimizers, schedules
from jaxcnn.train.schedules import StepDecay

EXPERIMENTS = sorted((pathlib.Path(__file__).parent.parent / "experiments").glob("*.py"))


def make(**fields):
    return Experiment(
        model=create_model("lenet5"), data=Data((32, 32, 1), augment=(Pad(2), HorizontalFlip())), **fields
    )


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_experiments_survive_json(file):
    experiment = parse(file, []).experiment
    assert decode(json.loads(json.dumps(encode(experiment)))) == experiment


def test_a_part_that_a_class_did_not_have_when_a_run_was_stored_is_as_by_default():
    now = encode(Tfds("flowers"))
    before = {name: value for name, value in now.items() if name != "rules"}
    assert now != before and changes(before, now) == {}
    ruled = encode(Tfds("flowers", rules=BoxRules(crowd="drop")))
    assert changes(before, ruled) == {"rules.crowd": ("keep", "drop")}
    assert changes({name: value for name, value in now.items() if name != "image"}, now) != {}  # no part


def test_nested_tuples_of_dataclasses_survive():
    experiment = make(schedule=StepDecay())
    assert decode(json.loads(json.dumps(encode(experiment)))) == experiment


def test_a_dtype_is_stored_by_name():
    assert encode(create_model("lenet5", dtype=jnp.bfloat16))["head"]["dtype"] == "bfloat16"


def test_differences_name_the_field_and_both_values():
    old, new = encode(make(seed=1)), encode(make(seed=2, schedule=StepDecay()))
    found = differences(old, new)
    assert found["seed"] == (1, 2)
    assert found["schedule.class"] == ("jaxcnn:Constant", "jaxcnn:StepDecay")
    assert differences(old, old) == {}


@pytest.mark.parametrize(
    ("source", "moved"),
    [
        (Folder("a"), Folder("b")),
        (ComposedCutouts("a"), ComposedCutouts("b")),
        (VOCSegmentation("a"), VOCSegmentation("b")),
        (PairedFolders("a/x", "a/y", ("one",)), PairedFolders("b/x", "c/y", ("one",))),
        (LabelTable("a.csv", "x"), LabelTable("b.csv", "y")),
    ],
    ids=lambda source: type(source).__name__,
)
def test_where_the_files_of_a_source_lie_may_change_between_starts_and_nothing_else_of_it(source, moved):
    old, new = (encode(dataclasses.replace(make(), data=Data((32, 32, 1), source=each))) for each in (source, moved))
    assert differences(old, new) and changes(old, new) == {}
    assert changes(old, encode(dataclasses.replace(make(), data=Data((32, 32, 1), source=Digits()))))
    field, was, now = ("seed", 0, 1) if isinstance(source, ComposedCutouts) else ("channels", 3, 1)
    other = dataclasses.replace(moved, **{field: now})
    other = encode(dataclasses.replace(make(), data=Data((32, 32, 1), source=other)))
    assert changes(old, other) == {f"data.source.{field}": (was, now)}
    set_data_paths(old, flatten(new))
    assert decode(old).data.source == moved


def test_flatten_numbers_what_is_in_a_tuple():
    flat = flatten(encode(make()))
    assert flat["data.augment.0.padding"] == 2 and flat["data.image_shape"] == [32, 32, 1]


def test_what_cannot_be_stored_is_named():
    model = make().model.clone()
    object.__setattr__(model.head, "dropout", make)
    with pytest.raises(UserError, match=r"model.head.dropout: <function"):
        encode(dataclasses.replace(make(), model=model))


def test_the_config_of_an_older_run_means_what_it_meant():
    """Its "he_normal" was fan-out; today's name of that is taken, and the run's config is not a changed one."""
    model = create_model("resnet18")
    now = encode(dataclasses.replace(make(), model=model))
    old = json.loads(json.dumps(now).replace("he_fan_out", "he_normal"))
    assert old != now and upgraded(old) == now
    assert decode(upgraded(old)).model == model
    assert differences(upgraded(old), now) == {}


def test_a_class_that_is_gone_is_named():
    encoded = encode(make())
    encoded["optimizer"]["class"] = "jaxcnn:Adagrad"
    with pytest.raises(UserError, match=r"jaxcnn:Adagrad cannot be rebuilt"):
        decode(encoded)


def test_every_class_that_a_config_can_name_has_a_public_name():
    """So that no file of jaxcnn is named in a run, and every one can move."""
    for model in MODELS.values():
        assert {name for name in classes(encode(model)) if not name.startswith("jaxcnn:")} == set()
    for file in EXPERIMENTS:
        assert {name for name in classes(encode(parse(file, []).experiment)) if not name.startswith("jaxcnn:")} == set()
    for module in (transforms, averages, optimizers, schedules, losses, classification):
        for name, value in vars(module).items():
            if (
                isinstance(value, type)
                and dataclasses.is_dataclass(value)
                and value.__module__ == module.__name__
                and name[0] != "_"
            ):
                assert class_name(value) == f"jaxcnn:{name}"


def test_a_config_of_format_0_names_modules_and_means_the_same():
    """As docs/results has them: from before classes had public names."""
    now = encode(make(schedule=StepDecay()))
    old = json.loads(
        json.dumps(now)
        .replace("jaxcnn:StepDecay", "jaxcnn.train.schedules:StepDecay")
        .replace("jaxcnn:LeNet", "jaxcnn.models.lenet:LeNet")
        .replace("jaxcnn:Checkpoints", "jaxcnn.train.checkpoint:Checkpoints")
    )
    assert old != now and upgraded(old) == now and upgraded({"format": 1} | now) == now
    assert upgraded({"class": "jaxcnn.models.googlenet:AuxiliaryHead"}) == {"class": "jaxcnn:GoogLeNetAuxiliaryHead"}
    assert upgraded_flat({"optimizer.class": "jaxcnn.train.optimizers:SGD"}) == {"optimizer.class": "jaxcnn:SGD"}
    own = {"class": "mine.parts:SGD"}
    assert upgraded(own) == own


def test_a_config_of_a_newer_format_is_refused():
    with pytest.raises(UserError, match="format 2 and this jaxcnn reads formats up to 1"):
        upgraded({"format": 2} | encode(make()))
