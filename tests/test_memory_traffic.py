"""The model of fusion of benchmarks/memory_traffic.py, against programs whose traffic is counted by hand."""

import json
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from benchmarks.memory_traffic import LARGE, traffic
from jaxcnn.models.layers import relu_of_sum

ROOT = pathlib.Path(__file__).parents[1]
BATCH = 7
UNIT = BATCH * LARGE * 2
"""Bytes of a map in bfloat16 with LARGE elements an image."""
MAP = jax.ShapeDtypeStruct((BATCH, LARGE), jnp.bfloat16)


def counted(function, *maps):
    found = traffic(jax.make_jaxpr(function)(*maps), BATCH)
    return found.convolutions / UNIT, found.between / UNIT, found.passes, found.kernels


def mean_and_variance(x):
    wide = x.astype(jnp.float32)
    return wide.mean(0), (wide * wide).mean(0)


def test_what_is_elementwise_is_one_pass():
    assert counted(lambda x, y: jax.nn.relu(x * 2 + y), MAP, MAP) == (0, 3, 3, 1)


def test_sums_over_one_map_are_one_pass_and_normalising_is_two_more():
    assert counted(mean_and_variance, MAP) == (0, 1, 1, 1)

    def norm(x):
        mean, square = mean_and_variance(x)
        return ((x - mean) * jax.lax.rsqrt(square - mean**2 + 1e-5)).astype(x.dtype)

    assert counted(norm, MAP) == (0, 3, 3, 2)


def test_what_a_product_reads_is_stored_and_what_it_writes():
    weights = jax.ShapeDtypeStruct((LARGE, LARGE), jnp.bfloat16)
    assert counted(lambda x, w: jnp.tanh(jnp.tanh(x) @ w), MAP, weights) == (2, 4, 4, 2)


def test_what_many_read_is_stored_if_computing_it_again_reads_more():
    def sums(*maps):
        total: Any = sum(maps[1:], start=maps[0])
        return total.reshape(BATCH, -1, 2).sum(2), total.sum(1)

    wide = jax.ShapeDtypeStruct(MAP.shape, jnp.float32)
    few, many = counted(sums, wide, wide), counted(sums, *[wide] * 6)
    assert few[2] == 2 * 2 + 1  # each of two kernels reads both; one writes half a map
    assert many[2] == 6 + 1 + 1 + 1  # read, stored and summed by one; read again by the other


def test_the_sum_before_a_relu_is_not_stored_if_the_result_is():
    weights = jax.ShapeDtypeStruct((LARGE, LARGE), jnp.bfloat16)

    def step(relu):
        # a, b are read by nothing else; their gradient is that of a product of the ReLU
        return lambda a, b, w: jax.grad(lambda a, b: jnp.sum((relu(a + b) @ w) ** 2), (0, 1))(a, b)

    kept, plain = counted(step(relu_of_sum), MAP, MAP, weights), counted(step(jax.nn.relu), MAP, MAP, weights)
    assert kept[0] == plain[0] and kept[1] < plain[1]


def test_the_table_of_the_page_is_the_stored_one():
    stored = json.loads((ROOT / "docs/results/memory_traffic.json").read_text())["nets"]
    section = (ROOT / "docs/speed.md").read_text().split("## Memory traffic")[1].split("\n## ")[0]
    rows = re.findall(
        r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \| ([\d,]+) \|$", section, re.M
    )
    shown = {name: [float(figure.replace(",", "")) for figure in figures] for name, *figures in rows}
    keys = ("MiB an image, convolutions", "MiB an image, between", "passes")
    assert shown == {
        name: [row[form][key] for form in ("plain", "gpu") for key in keys] for name, row in stored.items()
    }


@pytest.mark.parametrize("form", ["plain", "gpu"])
def test_residual_nets_move_what_batch_norm_without_fusion_needs(form):
    """ResNet-50 by hand: eight passes for each batch norm, over maps of 21 MiB an image in bfloat16 together."""
    row = json.loads((ROOT / "docs/results/memory_traffic.json").read_text())["nets"]["resnet50"][form]
    assert 8 * 21 < row["MiB an image, between"] < 12 * 21  # with joins and pooling, which have some more
