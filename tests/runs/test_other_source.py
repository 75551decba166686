"""`jaxcnn evaluate` on folders that the run was not trained on: those of classes, masks and boxes."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcnn import __main__ as command
from jaxcnn.data.coco import COCODetection
from jaxcnn.data.digits import Digits
from jaxcnn.data.fields import Field
from jaxcnn.data.folder import Folder
from jaxcnn.data.paired_folders import PairedFolders
from jaxcnn.data.voc import VOCDetection, VOCSegmentation
from jaxcnn.errors import UserError
from jaxcnn.experiment import Data, Experiment
from jaxcnn.runs import evaluation
from jaxcnn.runs.evaluation import evaluate_run
from jaxcnn.runs.other_source import source_at
from jaxcnn.tasks.segmentation import Segmentation
from jaxcnn.train.mesh import make_mesh
from tests.nets import TinyNet
from tests.tasks.segmenters import Pixelwise

CLASSES = ("ground", "cup", "plate")
SHAPE = (6, 5, 3)


@pytest.fixture
def folders(tmp_path):
    """Five images and masks as two folders, as two with splits, and in VOC's layout: the same in each."""
    rng = np.random.default_rng(0)
    for i in range(5):
        image = Image.fromarray(rng.integers(0, 256, SHAPE, np.uint8))
        mask = Image.fromarray(rng.integers(0, 3, SHAPE[:2]).astype(np.uint8))
        for images, masks in (("images", "masks"), ("val/x", "val/y"), ("voc/JPEGImages", "voc/SegmentationClass")):
            for folder, picture in ((images, image), (masks, mask)):
                (tmp_path / folder).mkdir(parents=True, exist_ok=True)
                picture.save(tmp_path / folder / f"{i}.png")
    (tmp_path / "voc/ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "voc/ImageSets/Segmentation/val.txt").write_text("\n".join(map(str, range(5))))
    return tmp_path


@pytest.fixture
def run(folders, monkeypatch):
    """A segmenter that was trained on the two folders, as load_run gives it."""
    source = PairedFolders(str(folders / "images"), str(folders / "masks"), CLASSES)
    data = Data(SHAPE, source, test_splits=("train",), evaluation_splits=(), evaluation_batch_size=4)
    model = Pixelwise(len(CLASSES))
    params = model.init(jax.random.key(0), np.zeros((1, *SHAPE), np.float32), train=False)["params"]
    restored = SimpleNamespace(
        state=SimpleNamespace(params=params, stats={}, average=None),
        classes=CLASSES,
        mesh=make_mesh(),
        experiment=Experiment(model, data, task=Segmentation()),
        directory=SimpleNamespace(newest_start=dict),
    )
    monkeypatch.setattr(evaluation, "load_run", lambda path, checkpoint: restored)
    return restored


def test_a_segmenter_is_evaluated_on_other_folders_of_masks(run, folders, monkeypatch, capsys):
    expected = evaluate_run("run")["train"]
    assert expected["count"] == 5 and 0 < expected["pixel_accuracy"] < 1
    (folders / "images").rename(folders / "moved")
    with pytest.raises(UserError, match=r"its images were in .*images, .* evaluate run --images NEW --masks NEW"):
        evaluate_run("run")
    moved = {"images": str(folders / "moved"), "masks": str(folders / "masks")}
    assert evaluate_run("run", paths=moved)["train"] == expected
    split = {"images": str(folders / "{split}/x"), "masks": str(folders / "{split}/y")}
    assert evaluate_run("run", "val", paths=split)["val"] == expected
    assert evaluate_run("run", "val", paths={"path": str(folders / "voc")})["val"] == expected
    (folders / "voc/classes.txt").write_text("ground\nplate\ncup\n")
    with pytest.raises(UserError, match="other classes, or another order"):
        evaluate_run("run", "val", paths={"path": str(folders / "voc")})
    monkeypatch.setattr("jaxcnn.runs.run_directory.open_run", lambda run: SimpleNamespace(roles=dict))
    flags = [word for field in ("images", "masks") for word in (f"--{field}", split[field])]
    assert command.main(["evaluate", "run", "--split", "val", "--json", *flags]) == 0
    assert f'"count": {expected["count"]}' in capsys.readouterr().out


class Boxes(Segmentation):
    def fields(self, image_shape):
        return {"boxes": Field((8, 4), "float32")}


@pytest.mark.parametrize(
    "source, task, given, wanted",
    [
        (Digits(), None, {"path": "/a"}, Folder("/a")),
        (Folder("/b", channels=3), None, {"path": "/a"}, Folder("/a", channels=3)),
        (VOCSegmentation("/b", ("x", "y")), Segmentation(), {"path": "/a"}, VOCSegmentation("/a", ("x", "y"))),
        (
            PairedFolders("/b", "/c", CLASSES, ignored=(7,), mask_suffix="_m"),
            Segmentation(),
            {"images": "/a", "masks": "/d"},
            PairedFolders("/a", "/d", CLASSES, ignored=(7,), mask_suffix="_m"),
        ),
        (Digits(), Boxes(), {"path": "/a"}, VOCDetection("/a", CLASSES)),
        (Digits(), Boxes(), {"images": "/a", "annotations": "/d"}, COCODetection("/a", "/d", CLASSES)),
    ],
)
def test_the_source_is_the_runs_own_elsewhere_or_the_tasks(source, task, given, wanted):
    more = {} if task is None else {"task": task}
    experiment = Experiment(TinyNet(), Data(SHAPE, source), **more)
    assert source_at(experiment, CLASSES, given) == wanted


@pytest.mark.parametrize(
    "task, given, told",
    [
        (
            {},
            {"images": "/a", "masks": "/b"},
            "--images and --masks: evaluating Classification takes --folder FOLDER, w",
        ),
        ({"task": Segmentation()}, {"images": "/a"}, "--images: evaluating Segmentation takes .*--images and --masks"),
        ({"task": Boxes()}, {"images": "/a", "masks": "/b"}, "or --images and --annotations"),
    ],
)
def test_folders_that_do_not_fit_the_task_are_refused(task, given, told):
    with pytest.raises(UserError, match=told):
        source_at(Experiment(TinyNet(), Data(SHAPE, Digits()), **task), CLASSES, given)
