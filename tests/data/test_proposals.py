"""Proposals beside the boxes of a source: files, ids, geometry, batches, and what is said of mistakes."""

import json
import pickle
import types

import numpy as np
import pytest
import scipy.io

import jaxcnn as jc
from jaxcnn import config
from jaxcnn.data.checks import check_example
from jaxcnn.data.draws import EVALUATION, Draws
from jaxcnn.data.fields import PLACEMENT, Field, box_fields, with_image
from jaxcnn.data.geometry import Geometry, move, move_boxes
from jaxcnn.data.memory import Memory, load
from jaxcnn.data.pipeline import EvaluationBatches
from jaxcnn.data.preparation import read
from jaxcnn.data.proposals import ProposedExamples
from jaxcnn.data.splits import open_split
from jaxcnn.metrics.proposal_recall import proposal_recall
from jaxcnn.runs.other_source import source_at
from tests.data.voc_folder import CAT, DOG

SCENES = jc.Synthetic((24, 32, 3), classes=2, train=6, test=5, parts=("boxes",))


def proposals_of(examples):
    """Of each example some boxes of its own, whose number varies."""
    rng = np.random.default_rng(0)
    found = {}
    for i in range(len(examples)):
        low = rng.uniform(0, 14, (3 + i, 2))
        found[examples.where(i)] = np.concatenate([low, low + rng.uniform(2, 10, low.shape)], 1).astype(np.float32)
    return found


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "proposals.npz"
    jc.write_proposals(path, proposals_of(SCENES.open("test")))
    return str(path)


def test_a_file_gives_each_example_its_own(file):
    source = jc.WithProposals(SCENES, file)
    examples, expected = open_split(source, "test", None), proposals_of(SCENES.open("test"))
    assert [len(examples[i]["proposals"]) for i in range(5)] == [3, 4, 5, 6, 7]
    for i in range(5):
        np.testing.assert_array_equal(examples[i]["proposals"], expected[f"synthetic/test[{i}]"])
        np.testing.assert_array_equal(examples[i]["boxes"], SCENES.open("test")[i]["boxes"])
    assert len(jc.WithProposals(SCENES, file, most=4).open("test")[3]["proposals"]) == 4
    part = open_split(source, "test[40%:]", None)
    where = [part.where(i) for i in range(len(part))]
    assert where == ["synthetic/test[2]", "synthetic/test[4]"]
    assert all((part[i]["proposals"] == expected[where[i]]).all() for i in range(2))
    again = pickle.loads(pickle.dumps(examples))  # for worker processes
    np.testing.assert_array_equal(again[2]["proposals"], examples[2]["proposals"])


def test_what_the_source_knows_beside_is_passed_on(file):
    examples, plain = jc.WithProposals(SCENES, file).open("test"), SCENES.open("test")
    np.testing.assert_array_equal(examples.labels, plain.labels)
    assert not hasattr(examples, "truth") and not hasattr(examples, "files") and examples.classes == plain.classes


def test_the_version_is_that_of_images_and_proposals(file, tmp_path):
    def version(**changes):
        return jc.WithProposals(SCENES, **({"file": file} | changes)).open("test").version

    moved = tmp_path / "moved.json"
    stored = jc.read_proposals(file)
    moved.write_text(json.dumps({name: boxes.tolist() for name, boxes in stored.items()}))
    other = tmp_path / "other.npz"
    jc.write_proposals(other, stored | {"synthetic/test[0]": [[1, 2, 3, 4]]})
    assert version() == version(file=str(moved)) and version().startswith("1+")
    searched = version(file=None), version(file=None, search=jc.SelectiveSearch(scales=(9.0,)))
    assert len({version(), version(file=str(other)), version(most=3), *searched}) == 5


@pytest.mark.parametrize("ids, none", [(None, (0, 4)), (("000005", "7"), (0, 4)), (None, (0, 0))])
def test_selective_searchs_own_files(ids, none, tmp_path):
    """Fast R-CNN's cells: (ymin, xmin, ymax, xmax), counted from 1, the last pixel included; [] is 0 x 0 in MATLAB."""
    boxes, images = np.empty((2, 1), object), np.empty((2, 1), object)
    boxes[:, 0] = [np.array([[1, 1, 24, 32], [3, 5, 3, 9]], np.uint16), np.zeros(none, np.uint16)]
    images[:, 0] = ["000005", "7"]
    scipy.io.savemat(tmp_path / "trainval.mat", {"boxes": boxes} | ({} if ids else {"images": images}))
    found = jc.read_proposals(tmp_path / "trainval.mat", ids)
    assert {name: each.tolist() for name, each in found.items()} == {
        "000005": [[0, 0, 32, 24], [4, 2, 9, 3]],
        "7": [],
    }
    jc.write_proposals(tmp_path / "ours.npz", found)
    again = jc.read_proposals(tmp_path / "ours.npz")
    assert again.keys() == found.keys() and all((again[name] == found[name]).all() for name in found)


def test_wrong_files_are_named(tmp_path, file):
    def refused(name, match, text="", **given):
        path = tmp_path / name
        if text:
            path.write_text(text)
        with pytest.raises(jc.UserError, match=match):
            jc.read_proposals(path, **given)

    refused("missing.npz", "missing.npz cannot be read")
    refused("boxes.txt", r"end in .npz, .json, .mat, not .*boxes.txt", "1 2 3 4")
    refused("broken.json", "cannot be read", "{")
    (tmp_path / "empty.npz").touch()
    refused("empty.npz", "empty.npz cannot be read")
    refused("cut.mat", "cut.mat cannot be read", "MATLAB 5.0 MAT-file")
    refused("list.json", "it is no object", "[[1, 2, 3, 4]]")
    refused("three.json", r"of 'a' are \[1, 3\], but proposals are finite numbers \[P, 4\]", '{"a": [[1, 2, 3]]}')
    refused("endless.json", "of 'a' are .* finite", '{"a": [[1, 2, 3, Infinity]]}')
    refused("nothing.json", "has no proposals", "{}")
    cells = np.empty((2, 1), object)
    cells[:, 0] = [np.ones((1, 4)), np.ones((1, 4))]
    scipy.io.savemat(tmp_path / "bare.mat", {"boxes": cells})
    refused("bare.mat", r'has no "images": give the lines of the list')
    refused("bare.mat", "boxes of 2 images, and there are 1 ids", ids=["a"])
    np.savez(tmp_path / "other.npz", boxes=np.zeros((1, 4)))
    refused("other.npz", "it has no '?ids")
    with pytest.raises(jc.UserError, match=r"ends in .npz, not .*x.json"):
        jc.write_proposals(tmp_path / "x.json", {})
    with pytest.raises(jc.UserError, match=r"synthetic/test has no proposals: open the split of WithProposals"):
        jc.write_proposals(tmp_path / "x.npz", SCENES.open("test"))


def test_an_id_that_the_file_lacks_is_named_before_anything_is_read(file):
    with pytest.raises(
        jc.UserError,
        match=r"no proposals of 6 of the 6 images of synthetic/train, the first: 'synthetic/train\[0\]'; did you mean "
        r".*5 images",
    ):
        jc.WithProposals(SCENES, file).open("train")


def test_proposals_of_another_size_are_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({f"synthetic/test[{i}]": [[0, 0, 8, 8], [1, 1, 40, 20]] for i in range(5)}))
    examples = jc.WithProposals(SCENES, str(path)).open("test")
    with pytest.raises(jc.BrokenExample, match=r"proposal 1 \(1, 1, 40, 20\) reaches over the image of 24 x 32"):
        examples[0]
    path.write_text(json.dumps({f"synthetic/test[{i}]": [[-0.5, 0, 32.9, 24], [3, 3, 3, 9]] for i in range(5)}))
    clipped = jc.WithProposals(SCENES, str(path)).open("test")[0]["proposals"]
    assert clipped.tolist() == [[0, 0, 32, 24]]  # rounding is, and a box without area is none


def test_without_a_file_they_are_searched_for_and_can_be_written(tmp_path):
    source = jc.WithProposals(SCENES, search=jc.SelectiveSearch(("rgb",), scales=(20.0,), smallest=2))
    examples = source.open("test")
    found = [examples[i]["proposals"] for i in range(5)]
    assert proposal_recall(found, [SCENES.open("test")[i] for i in range(5)]) == {"recall_50": 1, "recall_70": 1}
    jc.write_proposals(tmp_path / "found.npz", examples)
    stored = jc.WithProposals(SCENES, str(tmp_path / "found.npz")).open("test")
    assert all((stored[i]["proposals"] == found[i]).all() for i in range(5))


@pytest.mark.parametrize(
    "geometry",
    [Geometry(mirror=1), Geometry(window=(4, -6, 18, 30), size=(36, 90)), Geometry(angle=30.0), Geometry(mirror=0)],
)
def test_they_move_as_boxes_do(geometry):
    example = SCENES.open("test")[1]
    rng = np.random.default_rng(1)
    low = rng.uniform(0, 20, (40, 2)).astype(np.float32)
    example["proposals"] = np.minimum(np.concatenate([low, low + 5], 1), [32, 24, 32, 24]).astype(np.float32)
    example["proposals"][0] = example["boxes"][0]
    moved = move(example, geometry)
    expected = move_boxes(example["proposals"], geometry, (24, 32))
    seen = (expected[:, 2:] - expected[:, :2] > 1e-3).all(1)
    np.testing.assert_array_equal(moved["proposals"], expected[seen])
    np.testing.assert_array_equal(moved["proposals"][0], moved["boxes"][0])
    assert not np.array_equal(moved["proposals"][0], example["proposals"][0])


def test_a_batch_has_them_padded_at_the_end(file):
    fields = with_image((24, 32, 3), box_fields(4) | PLACEMENT | {"proposals": Field((6, 4), "float32")})
    examples = jc.WithProposals(SCENES, file, most=6).open("test")
    flip = (jc.HorizontalFlip(probability=1.0),)
    for loaded, rest in (load(examples, (), fields, 2**20), (examples, ())):
        assert isinstance(loaded, Memory | ProposedExamples)
        batch = EvaluationBatches(loaded, (*rest, *flip), fields, 5)[0]
        for i in range(5):
            boxes = examples[i]["proposals"]
            turned = np.stack([32 - boxes[:, 2], boxes[:, 1], 32 - boxes[:, 0], boxes[:, 3]], 1)
            np.testing.assert_allclose(batch["proposals"][i, : len(boxes)], turned, atol=1e-5)
            assert not batch["proposals"][i, len(boxes) :].any()
    small = with_image((24, 32, 3), {"proposals": Field((2, 4), "float32")})
    with pytest.raises(jc.BrokenExample, match="there are 3 proposals, and a batch takes 2"):
        read(examples, 0, (), Draws(EVALUATION).at(0), small)


def test_what_a_source_of_ones_own_gives_is_checked():
    examples, example = SCENES.open("test"), SCENES.open("test")[0]
    for wrong, match in (
        (np.zeros((3, 4)), "proposals is an array of float64"),
        (np.zeros((3, 5), np.float32), r"proposals is float32 \[P, 4\]"),
        (np.float32([[0, 0, 33, 4]]), "of its proposals box 0 .* reaches over the image of 24 x 32"),
        (np.float32([[0, 0, np.nan, 4]]), "reaches over"),
    ):
        with pytest.raises(jc.UserError, match=match):
            check_example(examples, 0, example | {"proposals": wrong}, ("image", "proposals"))
    with pytest.raises(
        jc.UserError, match=r"but an example .* float32 \[P, 4\]; WithProposals adds proposals to a source"
    ):
        check_example(examples, 0, example, ("image", "proposals"))


def test_the_photos_and_the_file_may_move(voc, tmp_path):
    voc.add("b", [CAT, DOG]).add("a", [])
    photos = jc.VOCDetection(str(voc.root))
    (tmp_path / "x.json").write_text(json.dumps({"a": [], "b": [[10, 5, 30, 20]]}))  # by the photos' names
    source = jc.WithProposals(photos, str(tmp_path / "x.json"))
    examples = open_split(source, "train", None)
    assert [len(examples[i]["proposals"]) for i in range(2)] == [1, 0]
    assert examples.truth(0).keys() == voc.open().truth(0).keys() and (examples.files == voc.open().files).all()
    encoded = {"data": {"source": config.encode(source), "data_dir": None}}
    assert config.folder_fields(encoded) == ("file", "source.path")
    config.set_data_paths(encoded, {"data.source.source.path": "/a", "data.source.file": "/b", "data.data_dir": "/c"})
    assert config.decode(encoded["data"]["source"]) == jc.WithProposals(jc.VOCDetection("/a"), "/b")
    experiment = jc.Experiment(
        model=jc.create_model("linear", classes=2), data=jc.Data((8, 8, 3), source=source), task=jc.Detection()
    )
    moved = source_at(experiment, ("cat", "dog"), {"path": str(tmp_path / "elsewhere")})
    assert moved == jc.WithProposals(jc.VOCDetection(str(tmp_path / "elsewhere")), source.file)


def test_wrong_sources_are_named():
    with pytest.raises(jc.UserError, match="WithProposals: most is 0"):
        jc.WithProposals(SCENES, most=0)
    with pytest.raises(jc.UserError, match=r"WithProposals.source is .* lacks open"):
        jc.WithProposals(types.SimpleNamespace())
