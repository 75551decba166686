"""Mixup and CutMix: pixels and labels are torchvision's for the same draws, shares have the papers' distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxcnn as jc
from jaxcnn.errors import UserError
from jaxcnn.tasks.mixing import mixed
from tests.compilation import quick
from tests.nets import TinyNet
from tests.runs.test_seeds import SHAPE, make, metrics, train
from tests.torchvision_ops import torch, torchvision_ops

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).normal(size=(64, 9, 12, 3)).astype(np.float32)


def in_torch(transform, images, **params):
    made = transform(num_classes=10)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    return made.transform(tensor, {"batch_size": len(images), "labels": None, **params}).permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module")
def v2():
    torchvision_ops()
    return pytest.importorskip("torchvision.transforms.v2")


def test_mixup_is_torchvisions(v2):
    ours, shares = jc.Mixup(0.4)(IMAGES, KEY)
    assert len(np.unique(shares)) == 64  # each image has its own
    for i in range(64):
        theirs = in_torch(v2.MixUp, IMAGES, lam=float(shares[i]))
        np.testing.assert_allclose(ours[i], theirs[i], atol=1e-6)


def test_cutmix_is_torchvisions(v2):
    """For the box that one finds in our pixels; its area is what the label loses."""
    ours, shares = jc.CutMix()(IMAGES, KEY)
    sizes = set()
    for i in range(64):
        changed = (np.asarray(ours[i]) != IMAGES[i]).any(-1)
        assert shares[i] == pytest.approx(1 - changed.mean(), abs=1e-6)
        if not changed.any():
            continue
        rows, columns = np.nonzero(changed.any(1))[0], np.nonzero(changed.any(0))[0]
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        np.testing.assert_array_equal(ours[i], in_torch(v2.CutMix, IMAGES, box=box, lam_adjusted=float(shares[i]))[i])
        sizes.add((box[2] - box[0], box[3] - box[1]))
    assert len(sizes) > 10


def test_shares_have_the_papers_distribution():
    keys = jax.random.key(1)
    _, shares = jc.Mixup(0.4)(jnp.zeros((20_000, 1, 1, 1)), keys)
    assert stats.kstest(np.asarray(shares), stats.beta(0.4, 0.4).cdf).pvalue > 0.01
    _, shares = quick(jc.CutMix(1.0))(jnp.zeros((4000, 64, 64, 1)), keys)
    rng = np.random.default_rng(0)  # the same by hand: what a box of that area keeps once it is clipped
    half = (0.5 * np.sqrt(1 - rng.beta(1, 1, 4000)) * 64).astype(int)
    x, y = rng.integers(0, 64, (2, 4000))
    wide, tall = (np.minimum(m + half, 64) - np.maximum(m - half, 0) for m in (x, y))
    assert stats.ks_2samp(np.asarray(shares), 1 - wide * tall / 64**2).pvalue > 0.01


def test_the_loss_is_that_of_a_label_in_parts_and_evaluation_mixes_nothing():
    task = jc.Classification(mix=(jc.Mixup(1.0), jc.CutMix()))
    batch = {"image": jax.random.normal(KEY, (16, *SHAPE)), "label": jnp.arange(16) % 4}
    net = TinyNet(norm=False)
    variables = net.init(KEY, batch["image"], train=False)
    rngs = {"dropout": jax.random.key(3)}
    loss, _, sums = quick(lambda b: task.loss(net, variables, b, train=True, rngs=rngs))(batch)
    key = jax.random.fold_in(rngs["dropout"], 0x6D6978)
    images, other, shares = mixed(task.mix, batch["image"], batch["label"], key)
    np.testing.assert_array_equal(other, np.roll(batch["label"], 1))
    target = shares[:, None] * jax.nn.one_hot(batch["label"], 4) + (1 - shares)[:, None] * jax.nn.one_hot(other, 4)
    logits = net.apply(variables, images, train=True)
    np.testing.assert_allclose(loss, -(target * jax.nn.log_softmax(logits)).sum(-1).mean(), rtol=1e-5)
    assert int(sums["accuracy"]) == int((logits.argmax(-1) == target.argmax(-1)).sum())
    plain = jc.Classification()
    for how in (task, plain):
        np.testing.assert_array_equal(
            how.loss(net, variables, batch, train=False, rngs=rngs)[0],
            plain.loss(net, variables, batch, train=False, rngs=rngs)[0],
        )
    both = np.asarray(images != batch["image"]).mean((1, 2, 3))
    assert (both == 1).any() and ((both < 1) & (both > 0)).any()  # some by each


def test_a_run_that_stops_goes_on_to_the_same(tmp_path):
    """tests/test_devices.py trains so on 1 to 8 devices."""
    made = make(0, task=jc.Classification(mix=(jc.Mixup(), jc.CutMix())), duration=jc.steps(12))
    train([tmp_path / "whole"], [made])
    asked = iter([False] * 8 + [True] + [False] * 100)
    outcomes, _ = train([tmp_path / "stopped"], [made], lambda: next(asked))
    assert outcomes[0].state == "preempted"
    train([tmp_path / "stopped"], [made])
    lines = [line for line in metrics(tmp_path / "whole") if line["split"] == "train"]
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole") and lines[-1]["loss"] < lines[0]["loss"]


def test_mistakes_are_one_sentence():
    for wrong, message in (
        (lambda: jc.Mixup(0.0), "Mixup.alpha is 0.0; it must be positive"),
        (lambda: jc.CutMix(-1.0), "CutMix.alpha is -1.0"),
        (lambda: jc.Classification(mix=jc.Mixup()), "task.mix is a Mixup; give a tuple"),
    ):
        with pytest.raises(UserError, match=message):
            wrong()
