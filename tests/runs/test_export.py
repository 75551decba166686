"""Exports are read where they are meant to be: by torch's nets, by jax without this package, and back by us."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import jaxcnn as jc
from jaxcnn import config
from jaxcnn.errors import UserError
from jaxcnn.models.catalogue import CATALOGUE
from jaxcnn.models.pretrained import leaves
from jaxcnn.runs.export import export_run, notes_beside, read_weights
from jaxcnn.runs.prediction import load_net
from tests.tiny_runs import ROOT, TINY, call, finish

NARROW = {"widths": (8, 8)}
DETECT = ROOT / "tests" / "experiments" / "detect.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = tmp_path_factory.mktemp("export") / "run"
    finish(TINY, "--workdir", run, "--duration", "10steps")
    return run


@pytest.mark.parametrize("format", ["npz", "safetensors"])
def test_weights_come_back_equal_to_the_bit_with_their_notes(run, format, tmp_path):
    if format == "safetensors":
        pytest.importorskip("safetensors", reason="safetensors is not installed (pip install -e '.[parity]'): not run")
    file, net = tmp_path / f"net.{format}", load_net(run)
    out = finish("export", run, "--out", file, module="jaxcnn").stdout
    arrays = flatten_dict(read_weights(file), sep="/")
    assert f"{file}: {len(arrays)} arrays by jaxcnn's names" in out.replace("\n", " ")
    expected = flatten_dict(net.variables, sep="/")
    assert arrays.keys() == expected.keys() and any(path.startswith("batch_stats/") for path in arrays)
    for path, array in arrays.items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)
        assert array.dtype == np.float32
    if format == "npz":
        notes = json.loads(str(np.load(file)["jaxcnn"]))
    else:
        from safetensors import safe_open

        with safe_open(file, "np") as opened:
            notes = json.loads(opened.metadata()["jaxcnn"])
    assert notes["classes"] == list(net.classes) and notes["normalize"] == config.encode(net.data.normalize)
    assert notes["image_shape"] == list(net.data.image_shape) and notes["step"] == net.step == 10


def test_a_program_runs_without_this_package(run, tmp_path):
    file, net = tmp_path / "net.jax", load_net(run)
    export_run(run, file, "jax", averaged=True)
    images = np.random.default_rng(0).integers(0, 256, (3, *net.data.image_shape), np.uint8)
    np.save(tmp_path / "images.npy", images)
    code = f"""
import sys, numpy as np
from jax import export
program = export.deserialize(bytearray(open({str(file)!r}, "rb").read()))
images = np.load({str(tmp_path / "images.npy")!r})
np.save({str(tmp_path / "answers.npy")!r}, np.concatenate([program.call(images), program.call(images[:1])]))
assert not [name for name in sys.modules if name.startswith(("jaxcnn", "flax"))]
assert {{*program.platforms}} == {{"cpu", "cuda", "tpu"}}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = np.load(tmp_path / "answers.npy")
    expected = load_net(run, averaged=True).predict(images)
    np.testing.assert_allclose(answers[:3], expected, atol=1e-6)
    np.testing.assert_allclose(answers[3:], expected[:1], atol=1e-6)
    assert np.abs(expected - net.predict(images)).max() > 1e-4  # the average is another net
    assert json.loads(notes_beside(file).read_text())["classes"] == list(net.classes)


LIBRARIES = [
    ("vgg11_bn", "torchvision", {"head": jc.FC(classes=7, widths=(8, 8), names=("fc6", "fc7", "fc8"), grid=(7, 7))}),
    ("vgg11", "timm", {"head": jc.FC(classes=7, widths=(8, 8), names=("fc6", "fc7", "fc8"), grid=(7, 7))}),
    ("resnet18", "torchvision", {}),
    ("efficientnet_b0", "torchvision", {}),
    ("efficientnet_b0", "timm", {"padding": "tf", "epsilon": 1e-3}),
    ("se_resnet50", "timm", {}),
    ("densenet121", "torchvision", {}),
    ("inception_v3", "torchvision", {}),
]


@pytest.mark.parametrize("name, library, fields", LIBRARIES, ids=[f"{name}-{of}" for name, of, _ in LIBRARIES])
def test_another_librarys_names_come_back_equal_to_the_bit(name, library, fields):
    model = jc.create_model(name, **fields) if "head" not in fields else jc.create_model(name).clone(**fields)
    given = {} if "head" not in fields else {"classes": 7, **NARROW}
    rng = np.random.default_rng(0)
    shapes = leaves(model, CATALOGUE[name].input_shape)
    arrays = {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}
    state = jc.to_torch(model, unflatten_dict(arrays, sep="/"), library)
    back = flatten_dict(
        jc.from_torch(name, state, **{k: v for k, v in fields.items() if k != "head"}, **given), sep="/"
    )
    assert back.keys() == arrays.keys()
    for path, array in arrays.items():
        np.testing.assert_array_equal(back[path], array, err_msg=path)


@pytest.mark.parametrize("name, library", [("resnet18", "torchvision"), ("efficientnet_b0", "timm"), ("vgg11", "timm")])
def test_their_net_loads_it_and_gives_our_logits(name, library):
    from tests.models.parity import close, photo, timm, to_torch, torch, torchvision

    fields = {"efficientnet_b0": {"padding": "tf", "epsilon": 1e-3}}.get(name, {})
    model = jc.create_model(name, classes=10, **fields)
    if library == "torchvision":
        theirs = getattr(torchvision(), name)(weights=None, num_classes=10)
    else:
        theirs = timm().create_model("tf_efficientnet_b0" if fields else name, pretrained=False, num_classes=10)
    shapes = leaves(model, CATALOGUE[name].input_shape)
    rng = np.random.default_rng(1)

    def drawn(path, shape):
        if path.endswith("/kernel"):
            return rng.normal(size=shape, scale=(2 / np.prod(shape[:-1])) ** 0.5)
        return rng.uniform(0.5, 1.5, shape) if path.endswith(("/scale", "/var")) else rng.normal(size=shape, scale=0.1)

    arrays = {path: drawn(path, shape).astype(np.float32) for path, shape in shapes.items()}
    variables = unflatten_dict(arrays, sep="/")
    state = {key: torch.from_numpy(array) for key, array in jc.to_torch(model, variables, library).items()}
    theirs.load_state_dict(state)
    images = photo((224, 224) if name == "vgg11" else (97, 113))
    with torch.no_grad():
        expected = theirs.eval()(to_torch(images)).numpy()
    ours = jax.jit(lambda variables, images: model.apply(variables, images, train=False))(variables, images)
    close(ours, expected, 1e-4)


def test_a_detectors_program_answers_with_plain_arrays(tmp_path):
    from jax import export

    run = tmp_path / "run"
    finish(DETECT, "--workdir", run, "--duration", "2steps")
    done = call("export", run, "--out", tmp_path / "net.jax", module="jaxcnn")
    if done.returncode:  # what sorts boxes may want to know how many images there are
        assert "say for how many images with --batch" in " ".join(done.stderr.split())
        finish("export", run, "--out", tmp_path / "net.jax", "--batch", "2", module="jaxcnn")
    program, net = export.deserialize(bytearray((tmp_path / "net.jax").read_bytes())), load_net(run)
    images = np.random.default_rng(0).integers(0, 256, (2, *net.data.image_shape), np.uint8)
    found, expected = program.call(images), net.predict(images)
    assert type(found) is dict and {"boxes", "scores"} <= set(found)
    for name, array in found.items():
        np.testing.assert_allclose(array, getattr(expected, name), atol=1e-4, err_msg=name)


def test_what_cannot_be_exported_is_told(run, tmp_path):
    for words, told in (
        (("--out", tmp_path / "net.pt"), "name it .safetensors, .npz, .jax or .onnx"),
        (("--out", tmp_path / "net.npz", "--names", "torchvision"), "no other library's names are known for this net"),
        (("--out", tmp_path / "net.jax", "--names", "timm"), "a program has no names of 'timm'"),
        (("--out", tmp_path / "net.npz", "--checkpoint", "7"), "7"),
        (("--out", tmp_path / "none" / "net.npz"), "there is no folder"),
        (
            ("--out", tmp_path / "net.npz", "--batch", "3"),
            "batch is 3; it is of a program (jax or onnx), and at least 1",
        ),
        (
            ("--out", tmp_path / "net.jax", "--batch", "0"),
            "batch is 0; it is of a program (jax or onnx), and at least 1",
        ),
        (("--out", run / "config.json", "--format", "npz"), "lies in the run directory"),
    ):
        done = call("export", run, *words, module="jaxcnn")
        errors = " ".join(done.stderr.split())
        assert done.returncode == 1 and told in errors and "Traceback" not in errors, errors
    assert not [*tmp_path.iterdir()]
    with pytest.raises(UserError, match="no format 'onxx'; did you mean 'onnx'"):
        export_run(run, tmp_path / "net.onnx", "onxx")


def test_names_that_do_not_compute_the_same_are_refused():
    model = jc.create_model("efficientnet_lite0")
    variables = {"params": {}}
    with pytest.raises(UserError, match=r"this net has padding='tf', .*torchvision \(padding='torch'\)"):
        jc.to_torch(model, variables, "torchvision")
    with pytest.raises(UserError, match=r"no names of 'torchvison' are known for this net; did you mean 'torchvision'"):
        jc.to_torch(model, variables, "torchvison")


@pytest.mark.parametrize(
    "name, fields",
    [
        ("resnet18", {"activation": "gelu"}),
        ("resnet18", {"norm": "group"}),
        ("resnet18", {"norm": "none"}),
        ("resnet50_v1", {}),
        ("vgg16", {"width": 0.5}),
        ("fcn8s_resnet50", {}),
        ("plain18", {}),
    ],
)
def test_nets_that_the_library_does_not_have_are_refused(name, fields):
    with pytest.raises(UserError, match="fields that the nets of that name in other libraries do not have"):
        jc.to_torch(jc.create_model(name, **fields), {"params": {}}, "torchvision")


def test_a_file_that_holds_no_weights_of_ours_is_told(tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "others.npz", **{"features.0.weight": np.zeros(3)})
    for name, told in (
        ("none.npz", "no such file"),
        ("broken.npz", "it is no npz and no safetensors file"),
        ("others.npz", "jc.from_torch"),
    ):
        with pytest.raises(UserError, match=told):
            read_weights(tmp_path / name)
