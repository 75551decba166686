"""The net of airbench94: its counts layer by layer, its initialisation, its head."""

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

import jaxcnn as jc
from jaxcnn.models.airbench import identity_first


def test_counts_are_those_of_airbench94_layer_by_layer():
    net = jc.Classifier(jc.Airbench(), jc.AirbenchHead())
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), np.float32)
    made = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x, train=False, method="features"), images)
    sizes = {path: leaf.size for path, leaf in flatten_dict(made[1]["params"]["backbone"], sep="/").items()}
    assert sizes == {
        "stem/kernel": 288,
        "stem/bias": 24,
        "conv1_1/kernel": 13_824,
        "conv1_2/kernel": 36_864,
        "conv2_1/kernel": 147_456,
        "conv2_2/kernel": 589_824,
        "conv3_1/kernel": 589_824,
        "conv3_2/kernel": 589_824,
        **{f"bn{group}_{layer}/bias": 64 if group == 1 else 256 for group in (1, 2, 3) for layer in (1, 2)},
    }
    ends = {name: end.shape[1:] for name, end in made[0].items()}
    assert ends["stem"] == (31, 31, 24) and ends["group1"] == (15, 15, 64)
    assert ends["group2"] == (7, 7, 256) and ends["group3"] == ends["final"] == (3, 3, 256)


def test_a_convolution_starts_by_passing_its_channels_on():
    images = jax.random.normal(jax.random.key(0), (1, 5, 5, 3))
    kernel = identity_first(jax.random.key(1), (3, 3, 3, 7))
    out = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_array_equal(out[..., :3], images)
    assert 0 < jnp.abs(kernel[..., 3:]).max() <= 1 / np.sqrt(27) and jnp.abs(kernel[..., 3:]).min() > 0
    narrow = identity_first(jax.random.key(1), (3, 3, 5, 2))
    assert narrow.sum() == 2 and narrow[1, 1, 0, 0] == narrow[1, 1, 1, 1] == 1


def test_the_head_takes_the_largest_value_of_each_map_and_scales_logits_down():
    final = jax.random.normal(jax.random.key(0), (2, 3, 3, 8))
    head = jc.AirbenchHead(classes=5)
    variables = head.init(jax.random.key(1), final, train=False)
    kernel = variables["params"]["fc"]["kernel"]
    expected = np.asarray(final).reshape(2, 9, 8).max(1) @ np.asarray(kernel) / 9
    np.testing.assert_allclose(head.apply(variables, final, train=False), expected, rtol=1e-5, atol=1e-6)
    assert set(variables["params"]["fc"]) == {"kernel"}
