"""Every study file builds, quick and full; some are run through the front door, and decide all their claims."""

import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import pytest

from jaxcnn import config
from jaxcnn.data.few import Few
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.studies.cell import check_metrics
from jaxcnn.studies.scale import SCALES, at_scale, scales_of
from jaxcnn.studies.study import Study, Untrained, folder, shrunk
from jaxcnn.tasks.detection import Detection
from jaxcnn.tasks.segmentation import Segmentation
from tests.tiny_runs import ROOT, finish, read

FILES = sorted((ROOT / "experiments" / "ablations").glob("*.py"))
NAMES = [file.stem for file in FILES]
WITHOUT_DOWNLOADS = ["depth", "degradation", "factorial", "fc_vs_gap", "initialisation", "paths"]
MEDIUM = {
    *("activations", "augmentation", "batch_norm", "batch_size", "cam_localization", "cnn_vs_mlp"),
    *("compound_scaling", "deformable_convolution", "degradation", "depth", "dropout", "fc_vs_gap", "fcn_strides"),
    *("fine_tuning", "one_stage_two_stages", "small_filters", "squeeze_excite", "templates"),
}
"""Studies that have a form for one GPU."""
CLASSES = {
    "Digits": 10,
    "fashion_mnist": 10,
    "cifar10": 10,
    "cifar10_jpeg": 10,
    "imagenet2012": 1000,
    "tiny_imagenet20": 20,
    "camvid": 11,
    "VOC2012": 21,
    "cutouts": 8,
    "sign_digits": 10,
    "bccd": 3,
}


def load(name):
    spec = importlib.util.spec_from_file_location(f"ablation_{name}", ROOT / "experiments" / "ablations" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_a_file_for_every_claim():
    claims = {load(name).__doc__.split(":")[0] for name in NAMES}
    assert claims == {f"C{number}" for number in range(1, 27)} | {"Beyond the course"}


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_has_every_part(name):
    doc = load(name).__doc__
    assert doc.splitlines()[0].endswith(".")
    assert f"python -m jaxcnn.launch experiments/ablations/{name}.py --quick" in doc
    for part in ("Paper", "Source"):
        if part in doc:
            break
    else:
        pytest.fail("names no source")
    assert "Expected: " in doc and "Published" in doc and "docs/studies.md" in doc


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_every_arm_is_a_config_and_a_model_that_takes_its_images(name, scale):
    file, quick = ROOT / "experiments" / "ablations" / f"{name}.py", scale == "quick"
    if scale not in scales_of(load(name).study, file):
        assert scale == "medium" and name not in MEDIUM
        with pytest.raises(UserError, match="has no medium form; it has the forms quick, full"):
            at_scale(load(name).study, scale, file)
        return
    study = at_scale(load(name).study, scale, file)
    assert isinstance(study, Study) and study.claims and len(study.seeds) >= 3
    check_metrics(study)
    if scale != "full":
        assert len(study.seeds) >= 5
    if quick:
        check_metrics(shrunk(study))
        assert shrunk(study).note.startswith("Tried out with --debug")
    for arm in study.arms.values():
        decoded = config.decode(json.loads(json.dumps(config.encode(arm))))
        assert decoded == arm and hash(decoded) == hash(arm)  # the tables look cells up
        if not isinstance(arm, Experiment):
            assert isinstance(arm, Untrained)
            continue
        source = pathlib.Path(getattr(arm.data.source, "path", "")).name
        source = source or getattr(arm.data.source, "name", type(arm.data.source).__name__)
        few = isinstance(arm.data.source, Few)
        assert arm.model.classes == (arm.data.source.classes if few else CLASSES[source])
        images = jnp.zeros((1, *arm.data.image_shape))
        if isinstance(arm.task, Detection):
            found = jax.eval_shape(
                lambda arm=arm, images=images: arm.model.init_with_output(jax.random.key(0), images, train=False)[0]
            )
            assert found.boxes.shape == (1, 100, 4)
            continue
        logits = jax.eval_shape(
            lambda arm=arm, images=images: arm.model.init_with_output(jax.random.key(0), images, train=False)[0]
        )
        of_pixels = arm.data.image_shape[:2] if isinstance(arm.task, Segmentation) else ()
        assert logits.shape == (1, *of_pixels, arm.model.classes)
        if quick and name in WITHOUT_DOWNLOADS:
            assert source == "Digits"


@pytest.mark.parametrize("name", ["templates", "neighbours", "dropout"])
def test_debug_decides_every_claim(name, tmp_path):
    """The probes and the arms that are no runs are in these; a claim whose figure nobody measures has no difference."""
    finish(ROOT / "experiments" / "ablations" / f"{name}.py", "--debug", "--workdir", tmp_path / "study")
    results = read(tmp_path / "study", "study.json")
    study = load(name).study("quick")
    assert list(results["arms"]) == list(study.arms)
    for arm in study.arms:
        assert {cell["state"] for cell in results["arms"][arm]["cells"]} == {"done"}
        assert (tmp_path / "study" / "cells" / folder(arm) / "seed1" / "config.json").exists()
    for claim in results["claims"]:
        assert claim["difference"] is not None and len(claim["difference"]["values"]) == 2, claim["metric"]
