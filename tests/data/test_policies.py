"""Policies beside torchvision's: the same operations to the pixel, spaces and tables; and what is drawn."""

import itertools
import math

import numpy as np
import pytest

import jaxcnn as jc
from jaxcnn.data import policies
from jaxcnn.data.auto_augment import SUBPOLICIES
from jaxcnn.data.operations import OPERATIONS, SIGNED, operate
from jaxcnn.data.policies import AugMix, AutoAugment, RandAugment, TrivialAugment
from jaxcnn.data.preparation import TransformMistake, transformed
from jaxcnn.errors import UserError
from tests.data.pictures import NOISE, SMOOTH, rng

SHAPE = (41, 67, 3)
IMAGES = {"noise": NOISE, "smooth": SMOOTH}
TRIED = {
    "ShearX": (0.3, -0.21),
    "ShearY": (0.17, -0.3),
    "TranslateX": (9.7, -4.0),
    "TranslateY": (3.2, -11.9),
    "Rotate": (30.0, -17.3),
    "Brightness": (0.9, -0.33),
    "Color": (0.72, -0.9),
    "Contrast": (0.9, -0.45),
    "Sharpness": (0.9, -0.6),
    "Posterize": (4, 6, 8),
    "Solarize": (0.0, 76.5, 255.0),
    "AutoContrast": (0.0,),
    "Equalize": (0.0,),
    "Invert": (0.0,),
}


@pytest.fixture(scope="module")
def theirs():
    """torchvision's module; its operations on pictures of Pillow."""
    from tests.models.parity import torchvision

    torchvision()
    return pytest.importorskip("torchvision.transforms.autoaugment", reason="torchvision is not installed: not run")


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_torchvisions_to_the_pixel(name, image, channels, theirs):
    from PIL import Image

    image = image if channels == 3 else image[..., :1]
    picture = Image.fromarray(image if channels == 3 else image[..., 0])
    modes = {"nearest": theirs.InterpolationMode.NEAREST, "bilinear": theirs.InterpolationMode.BILINEAR}
    for magnitude, (method, mode), fill in itertools.product(TRIED[name], modes.items(), (0, 77)):
        expected = np.asarray(theirs._apply_op(picture, name, float(magnitude), mode, [float(fill)] * channels))
        found = operate(image, name, magnitude, method, fill)
        assert found.dtype == np.uint8 and found.shape == image.shape
        np.testing.assert_array_equal(found.reshape(expected.shape), expected, err_msg=f"{magnitude} {method}")


@pytest.mark.parametrize("name", ["Posterize", "Solarize", "Invert", "Equalize", "AutoContrast", "Brightness", "Color"])
def test_operations_on_levels_agree_with_a_second_implementation(name, theirs):
    """torchvision's own, on tensors: it does not call Pillow."""
    import torch

    for image, magnitude in itertools.product(IMAGES.values(), TRIED[name]):
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        expected = theirs._apply_op(tensor, name, float(magnitude), theirs.InterpolationMode.NEAREST, None)
        difference = operate(image, name, magnitude).astype(int) - expected.numpy().transpose(1, 2, 0)
        assert np.abs(difference).max() <= (2 if name in ("Color", "AutoContrast") else 1)


def same_space(ours, theirs):
    for name, (values, signed) in theirs.items():
        expected = np.asarray(values, float)
        found = ours[name] if expected.ndim else np.zeros(())
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=name)
        assert signed == (name in SIGNED)


def test_the_spaces_are_torchvisions(theirs):
    size = SHAPE[:2]
    space = theirs.RandAugment()._augmentation_space(31, size)
    same_space(policies.of_rand_augment(SHAPE), space)
    assert set(space) == set(policies.RAND_AUGMENT)
    same_space(policies.WIDE, theirs.TrivialAugmentWide()._augmentation_space(31))
    same_space(policies.of_auto_augment(SHAPE), theirs.AutoAugment()._augmentation_space(10, size))
    space = theirs.AugMix()._augmentation_space(10, size)
    same_space(policies.of_aug_mix(SHAPE), space)
    assert set(space) == set(policies.AUG_MIX)


@pytest.mark.parametrize("policy", SUBPOLICIES)
def test_the_learned_pairs_are_torchvisions(policy, theirs):
    expected = theirs.AutoAugment(theirs.AutoAugmentPolicy(policy)).policies
    ours = [tuple((name, chance, level) for name, chance, level in pair) for pair in SUBPOLICIES[policy]]
    assert ours == [tuple((name, chance, level or 0) for name, chance, level in pair) for pair in expected]


@pytest.mark.parametrize("policy", [RandAugment(), TrivialAugment(), AutoAugment("cifar10"), AugMix()], ids=str)
def test_a_policy_draws_from_its_generator_alone_and_changes_images(policy):
    before = NOISE.copy()
    outs = [policy(NOISE, rng(seed)) for seed in range(40)]
    assert all(out.dtype == np.uint8 and out.shape == NOISE.shape for out in outs)
    np.testing.assert_array_equal(NOISE, before)
    for seed in (0, 7):
        np.testing.assert_array_equal(policy(NOISE, rng(seed)), outs[seed])
    assert len({out.tobytes() for out in outs}) > 15
    assert policy(NOISE[..., :1], rng(3)).shape == (*NOISE.shape[:2], 1)


def test_every_operation_and_sign_is_drawn_as_often(monkeypatch):
    seen = []
    monkeypatch.setattr(policies, "operate", lambda image, name, magnitude, *_: seen.append((name, magnitude)) or image)
    generator = rng()
    for _ in range(7000):
        RandAugment(number=1, level=15)(NOISE, generator)
    counts = {name: sum(one == name for one, _ in seen) for name in policies.RAND_AUGMENT}
    assert all(abs(count - 500) < 5 * math.sqrt(500) for count in counts.values()), counts
    signs = [magnitude > 0 for name, magnitude in seen if name in SIGNED]
    assert abs(np.mean(signs) - 0.5) < 0.03
    assert {round(abs(magnitude), 6) for name, magnitude in seen if name == "Rotate"} == {15.0}
    seen.clear()
    for _ in range(6000):
        TrivialAugment()(NOISE, generator)
    levels = {round(abs(magnitude), 4) for name, magnitude in seen if name == "Rotate"}
    assert len(levels) == 31 and max(levels) == 135


def test_aug_mix_mixes_in_the_drawn_shares(monkeypatch):
    """With operations that make an image black the mixture is the image's own share, of a uniform distribution."""
    monkeypatch.setattr(policies, "operate", lambda image, *_: np.zeros_like(image))
    image, generator = np.full((2, 2, 3), 200, np.uint8), rng()
    shares = np.array([AugMix()(image, generator)[0, 0, 0] for _ in range(3000)]) / 200
    assert abs(shares.mean() - 0.5) < 0.02 and abs(shares.var() - 1 / 12) < 0.006


def test_parts_that_would_not_move_are_refused():
    example = {"image": NOISE, "mask": NOISE[..., 0]}
    with pytest.raises(TransformMistake, match=r"RandAugment\(.*\) moves pixels of the image alone, .* has mask"):
        transformed(example, (RandAugment(),), rng())
    assert transformed({"image": NOISE}, (RandAugment(),), rng())["image"].shape == NOISE.shape


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda: RandAugment(level=31), "level must be a whole number, at least 0 and at most 30"),
        (lambda: RandAugment(method="lanczos"), "method is one of nearest, bilinear, bicubic"),
        (lambda: AutoAugment("imagenett"), "did you mean 'imagenet'"),
        (lambda: AugMix(severity=0), "severity must be a whole number, at least 1"),
        (lambda: TrivialAugment(fill=300), "fill must be a level in 0..255"),
        (lambda: RandAugment(number=1.5), "number must be a whole number"),
        (lambda: AugMix(alpha=float("inf")), "alpha must be a number, above 0"),
        (lambda: RandAugment(fill=0.5), "fill must be a level in 0..255"),
        (lambda: RandAugment()(np.zeros((8, 8, 4), np.uint8), rng()), "the image has 4 channels; policies take 1 or 3"),
        (lambda: operate(NOISE, "Rotated", 1.0), "no operation 'Rotated'"),
        (lambda: operate(NOISE, "Rotate", 1.0, fill=(1, 2)), "fill has 2 levels, but the image has 3 channels"),
    ],
)
def test_wrong_fields_are_one_sentence(make, told):
    with pytest.raises(UserError, match=told):
        make()


def test_an_experiment_takes_them():
    data = jc.Data((32, 32, 3), augment=(jc.RandAugment(), jc.RandomErasing(), jc.PCANoise()))
    assert jc.Experiment(jc.create_model("linear", classes=10), data).data.augment[0].level == 9
