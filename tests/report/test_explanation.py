"""`jaxcnn explain` and `jaxcnn kernels`: pictures and pages, through the front door."""

import errno
import os
import pathlib
import re

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcnn import __main__ as command
from jaxcnn import files
from jaxcnn.commands.runs import ExplainMethod
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.data.transforms import UNIT
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.explain.overlay import GIVEN, enlarge
from jaxcnn.models import Segmenter, create_model
from jaxcnn.models.fcn import SkipHead
from jaxcnn.report import explanation
from jaxcnn.report.explanation import Method, Question, explain_run
from jaxcnn.report.target import target_of
from jaxcnn.runs.prediction import Net, decode_file, load_net, prepare
from jaxcnn.tasks.segmentation import Segmentation
from tests.tiny_runs import ROOT, TINY, finish

GAP_NET = '''"""A net with global average pooling, on made-up images."""

from jaxcnn import Data, Experiment, create_model
from jaxcnn.data.synthetic import Synthetic
from jaxcnn.data.transforms import CenterCrop, Resize
from jaxcnn.models import GAP
from jaxcnn.train.duration import steps


def experiment() -> Experiment:
    return Experiment(
        model=create_model("lenet5", head=GAP(classes=4), activation="relu"),
        data=Data(
            source=Synthetic(image_shape=(40, 40, 3), classes=4, train=64, test=16),
            image_shape=(32, 32, 3),
            augment=(CenterCrop(32),),
            preprocess=(Resize(40), CenterCrop(32)),
            batch_size=16,
        ),
        duration=steps(20),
    )
'''


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    (folder / "gap.py").write_text(GAP_NET)
    finish(folder / "gap.py", "--workdir", folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """80x160 pixels; the net sees its middle half."""
    path = tmp_path_factory.mktemp("photo") / "a photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 160, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def call(capsys):
    """The command in this process: (exit code, what it printed)."""

    def call(*arguments):
        code = command.main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    return call


def test_the_front_door_writes_an_overlay_and_a_page(run, photo, tmp_path):
    out = finish("explain", run, photo, "--method", "gradcam", "--out", tmp_path, module="jaxcnn").stdout
    assert re.search(r"a photo: class\d, probability 0\.\d{4} \(predicted\)", out)
    assert re.search(r"a photo: localisation box \d+,\d+,\d+,\d+ ", out)
    assert re.search(r"a photo: deletion \d\.\d{3}  insertion \d\.\d{3}\n", out)
    assert f"page {tmp_path / 'gradcam.html'}" in out
    (picture,) = tmp_path.glob("*.png")
    index = re.fullmatch(r"a photo_gradcam_final_(\d)-class\1\.png", picture.name)[1]
    assert Image.open(picture).size == (224, 224) and f"a photo: class{index}, probability" in out
    page = (tmp_path / "gradcam.html").read_text()
    # The prepared image, the same normalized, and the map.
    assert f'href="a%20{picture.name[2:]}"' in page and page.count("data:image/png") == 3 and "<svg" in page
    assert "<th>probability</th>" in page and not re.search('(src|href)="http', page)


def test_the_commands_choices_are_those_of_the_page():
    assert ExplainMethod == Method


@pytest.mark.parametrize("method", ["cam", "occlusion", "features", "receptive-field", "filters"])
def test_every_method_draws(method, run, photo, tmp_path, call):
    code, out = call("explain", run, photo, "--method", method, "--endpoint", "stage2", "--out", tmp_path)
    assert code == 0, out
    (picture,) = tmp_path.glob("*.png")
    page = f"{method}_stage2.html" if method in ("features", "receptive-field") else f"{method}.html"
    assert np.asarray(Image.open(picture)).std() > 5
    assert picture.name in (tmp_path / page).read_text().replace("%20", " ")
    assert {
        "cam": "localisation box",
        "occlusion": "insertion",
        "features": "stage2: 16 maps of 10x10",
        "receptive-field": "stage2, position (5, 5): sees 14x14 pixels",
        "filters": "6 filters of 5x5x3 in backbone/c1",
    }[method] in out


def test_templates_of_a_linear_net(tmp_path, call):
    finish(ROOT / "experiments" / "linear_digits.py", "--debug", "--workdir", tmp_path / "run")
    code, out = call("explain", tmp_path / "run", "--method", "templates")
    assert code == 0 and "10 templates of 8x8x1" in out
    page = (tmp_path / "run" / "explain" / "templates.html").read_text()
    assert page.count("<figure>") == 10 and (tmp_path / "run" / "explain" / "templates.png").exists()


def test_a_class_by_name_or_index_and_the_iou_of_a_given_box(run, photo, tmp_path, call):
    _, predicted = call("explain", run, photo, "--method", "cam", "--out", tmp_path / "a")
    index = re.search(r"class(\d), probability", predicted)[1]
    _, by_name = call("explain", run, photo, "--method", "cam", "--class", f"class{index}", "--out", tmp_path / "b")
    _, by_index = call("explain", run, photo, "--method", "cam", "--class", index, "--out", tmp_path / "c")
    assert (
        predicted.replace(" (predicted)", "").split("page")[0] == by_name.split("page")[0] == by_index.split("page")[0]
    )
    _, other = call(
        "explain", run, photo, "--method", "cam", "--class", "0" if index == "1" else "1", "--out", tmp_path
    )
    assert other.split("page")[0] != by_index.split("page")[0]
    found = re.search(r"box (\d+),(\d+),(\d+),(\d+)", by_name)
    left, top, right, bottom = map(int, found.groups())
    # The same box in the photo, which the net sees at half its size from (44, 4) on.
    edges = f"{2 * (left + 24)},{2 * (top + 4)},{2 * (right + 24)},{2 * (bottom + 4)}"
    _, out = call("explain", run, photo, "--method", "cam", "--box", edges, "--out", tmp_path)
    assert "IoU with the given box 1.000" in out


def test_a_map_of_zeros_is_said_and_not_drawn(run, photo, tmp_path, call, monkeypatch):
    monkeypatch.setattr(explanation, "gradcam", lambda model, variables, images, classes, endpoint: images[..., 0] * 0)
    code, out = call("explain", run, photo, "--method", "gradcam", "--box", "40,0,120,80", "--out", tmp_path)
    assert (
        code == 0 and "the map is nowhere above 0: nothing at 'final' speaks for" in out and "no box, no scores" in out
    )
    assert "IoU with the given box 0.000" in out and "nan" not in out.lower()
    net = load_net(run)
    seen = enlarge(prepare(decode_file(photo, 3), net.data, photo), 7)
    picture = np.asarray(Image.open(*tmp_path.glob("a photo_gradcam_final_*.png")))
    changed = (picture != seen).any(-1)
    assert changed.any() and not changed.all() and (picture[changed] == GIVEN).all()  # the given box and nothing else


def test_maps_that_are_not_finite_are_refused(run, photo, tmp_path, call, monkeypatch):
    nan = lambda model, variables, images, classes, endpoint: images[..., 0] * np.nan  # noqa: E731
    monkeypatch.setattr(explanation, "gradcam", nan)
    code, out = call("explain", run, photo, "--method", "gradcam", "--out", tmp_path)
    assert code == 1 and "the map is not finite" in out


def test_mistakes_are_named(run, photo, tmp_path, call):
    def refused(*arguments):
        code, out = call("explain", *arguments, "--out", tmp_path)
        assert code == 1, out
        return out

    assert "no class 'clas2'; did you mean" in refused(run, photo, "--method", "cam", "--class", "clas2")
    assert "it has 4 classes, from 0" in refused(run, photo, "--method", "cam", "--class", "9")
    assert "did you mean 'stage1'" in refused(run, photo, "--method", "gradcam", "--endpoint", "stage11")
    assert "needs at least one image" in refused(run, "--method", "cam")
    assert "only a linear net" in refused(run, "--method", "templates")
    assert "--box goes with a map" in refused(run, photo, "--method", "features", "--box", "0,0,1,1")
    assert "one image, and there are 2" in refused(run, photo, photo, "--method", "cam", "--box", "0,0,1,1")
    assert "is no box" in refused(run, photo, "--method", "cam", "--box", "9,0,1,1")
    assert "numbers with commas" in refused(run, photo, "--method", "cam", "--box", "a,b")
    assert "no part in what the net sees" in refused(run, photo, "--method", "cam", "--box", "0,0,20,20")
    assert "cannot be read as an image" in refused(run, run / "config.json", "--method", "cam")
    (tmp_path / "file").write_text("")
    code, out = call("explain", run, photo, "--method", "cam", "--out", tmp_path / "file")
    assert code == 1 and "choose another --out" in out


def test_a_net_without_feature_maps_still_has_filters_and_occlusion(photo, tmp_path, call):
    finish(TINY, "--workdir", tmp_path / "run", "--duration", "10steps")
    small = tmp_path / "small.png"
    Image.open(photo).resize((9, 9)).save(small)
    for method in ("filters", "occlusion"):
        assert call("explain", tmp_path / "run", small, "--method", method)[0] == 0
    code, out = call("explain", tmp_path / "run", small, "--method", "gradcam")
    assert code == 1 and "TinyNet has no feature maps" in out


def test_kernels_and_poolings_on_a_page(photo, tmp_path):
    out = finish("kernels", photo, "--out", tmp_path, "--sizes", "2", "5", module="jaxcnn").stdout
    assert f"page {tmp_path / 'kernels.html'}" in out
    assert {path.name for path in tmp_path.glob("*.png")} == {
        *(f"a photo_{name}.png" for name in ("sharpen", "emboss", "horizontal-line", "vertical-line")),
        *(f"a photo_{kind}-pool-{size}.png" for kind in ("max", "average", "min") for size in (2, 5)),
    }
    page = (tmp_path / "kernels.html").read_text()
    assert page.count("data:image/png") == 1 + 4 + 6 and "max: 80x160 to 16x32" in page


def test_another_endpoint_or_class_makes_another_page_and_other_pictures(run, photo, tmp_path, call):
    asked = [("--class", "class0"), ("--class", "1", "--endpoint", "stage1")]
    for flags in asked:
        code, out = call("explain", run, photo, "--method", "gradcam", "--out", tmp_path, *flags)
        assert code == 0, out
    assert {path.name for path in tmp_path.iterdir()} == {
        "a photo_gradcam_final_0-class0.png",
        "a photo_gradcam_stage1_1-class1.png",
        "gradcam_class0.html",
        "gradcam_stage1_1.html",
    }


def test_a_bad_image_among_good_ones_costs_only_itself(run, photo, tmp_path, call):
    images, out = tmp_path / "images", tmp_path / "out"
    (images / "inside").mkdir(parents=True)
    raw = os.fsencode(images) + b"/caf\xe9.png"  # Latin-1, as an old camera or a Windows share has it
    for path in (raw, images / "inside" / "b.png"):
        pathlib.Path(os.fsdecode(path)).write_bytes(photo.read_bytes())
    (images / "c.png").write_bytes(photo.read_bytes()[:300])
    (images / "notes.txt").write_text("no image by its extension")
    code, shown = call("explain", run, images, "--method", "features", "--endpoint", "stage1", "--out", out)
    assert code == 1 and re.search("error: .*c.png cannot be read as an image: .*truncated", shown)
    assert {path.name for path in out.iterdir()} == {
        "caf\N{REPLACEMENT CHARACTER}_features_stage1.png",
        "b_features_stage1.png",
        "features_stage1.html",
    }
    page = (out / "features_stage1.html").read_text()
    assert "<h2>b</h2>" in page and "<h2>caf\N{REPLACEMENT CHARACTER}</h2>" in page and "c.png" not in page
    code, shown = call("explain", run, images / "c.png", "--method", "features", "--out", tmp_path / "none")
    assert code == 1 and "page" not in shown and not list((tmp_path / "none").iterdir())


def test_kernels_leave_out_what_cannot_be_read(photo, tmp_path, call):
    (tmp_path / "small.png").write_bytes(photo.read_bytes()[:300])
    os.mkfifo(tmp_path / "pipe.png")
    code, shown = call("kernels", photo, tmp_path, "--out", tmp_path / "out", "--sizes", "2")
    assert code == 1 and "pipe.png cannot be read as an image: it is a named pipe (FIFO)" in shown
    assert "truncated" in shown and "a photo" in (tmp_path / "out" / "kernels.html").read_text()


@pytest.mark.parametrize("command", ["explain", "kernels"])
def test_a_full_disk_is_one_sentence(command, run, photo, tmp_path, call, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_text", full)
    arguments = (run, photo, "--method", "features") if command == "explain" else (photo, "--sizes", "2")
    code, shown = call(command, *arguments, "--out", tmp_path)
    assert code == 1 and re.search(r"error: .*\.html cannot be written: .*No space left on device", shown)


def test_what_enters_the_net_is_shown_beside_what_it_sees(run, photo):
    net = load_net(run)
    draw = explanation._Draw(net, explanation.Question("occlusion"), photo.parent)
    light, dark = (np.full((32, 32, 3), level, np.uint8) for level in (255, 0))
    assert "1.00 to 1.00, mean 1.00" in draw._normalized("a", light, 7).caption.replace("-", "")
    assert draw._normalized("a", light, 7).caption != draw._normalized("a", dark, 7).caption


@pytest.fixture
def segmenter(monkeypatch):
    """A net with weights that were drawn, in the place of a run's, which gives no pixel to the last of its classes."""
    source = Synthetic(image_shape=(32, 32, 3), classes=4, parts=("mask",))
    backbone = create_model("vgg11_bn", stages=2, width=0.0625, classes=4).backbone
    model = Segmenter(backbone, SkipHead(4, (("final", 4, 1.5),)))
    variables = model.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32), train=False)
    kernel = variables["params"]["head"]["score_final"]["kernel"]
    scores = jax.random.normal(jax.random.key(1), kernel.shape)
    scores = (scores - scores.mean(2, keepdims=True)).at[..., 3].set(-9.0)  # the maps are at least 0
    variables["params"]["head"]["score_final"]["kernel"] = scores
    experiment = Experiment(model, Data((32, 32, 3), source), task=Segmentation())
    net = Net(experiment, ("ground", "cup", "plate", "spoon"), variables, 0)
    monkeypatch.setattr(explanation, "load_net", lambda *args, **kwargs: net)
    return net


@pytest.mark.parametrize("method", ["gradcam", "occlusion"])
def test_a_segmenter_is_explained_by_the_pixels_that_it_gives_to_a_class(method, segmenter, tmp_path):
    image = np.zeros((32, 32, 3), np.uint8)
    image[:16], image[16:, :12] = (255, 0, 80), (0, 200, 255)
    Image.fromarray(image).save(tmp_path / "table.png")
    logits = segmenter.experiment.model.apply(segmenter.variables, UNIT(image[None]), train=False)[0]
    probabilities, labels = np.asarray(jax.nn.softmax(logits)), np.asarray(logits.argmax(-1))
    covered = np.bincount(labels.reshape(-1), minlength=4)
    assert covered[3] == 0 and sorted(covered)[-2] > 0

    def lines_of(chosen):
        return explain_run(tmp_path, [tmp_path / "table.png"], Question(method, chosen), tmp_path / "out")[0]

    most = int(covered.argmax())
    assert f"{segmenter.classes[most]}, {covered[most] / 1024:.1%} of the pixels (most of all)" in lines_of(None)[0]
    chosen = int(np.argsort(covered)[-2])
    name = segmenter.classes[chosen]
    assert lines_of(name)[0] == f"table: {name}, {covered[chosen] / 1024:.1%} of the pixels"
    assert [*(tmp_path / "out").glob(f"table_{method}*_{chosen}-{name}.png")]
    target = target_of(segmenter, image, chosen)
    found = target.probability(np.stack([image, image]).astype(np.float32))
    np.testing.assert_allclose(found, probabilities[..., chosen][labels == chosen].mean(), rtol=1e-4)
    assert "spoon, 0.0% of the pixels: predicted nowhere" in lines_of("spoon")[0]
    found = target_of(segmenter, image, 3).probability(image[None].astype(np.float32))
    np.testing.assert_allclose(found, probabilities[..., 3].mean(), rtol=1e-4, atol=1e-9)


def test_a_map_of_a_class_says_which_methods_a_segmenter_has(segmenter, tmp_path):
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "table.png")
    with pytest.raises(UserError, match=r"CAM needs a head of global average pooling .* use gradcam"):
        explain_run(tmp_path, [tmp_path / "table.png"], Question("cam"), tmp_path / "out")
