"""What must not change a kernel: padding, order, tiles, micro-batches; and what must be exact."""

from functools import cache

import jax
import numpy as np
import pytest

import ntkft
from ntkft._tree import take_examples
from ntkft.kernels.factors.host import Host
from tests.cases import CASES
from tests.tolerances import INVARIANCE_F32, kernel_error

ATTENTION = ("bert", "gpt2", "tied_decoder")


def _single(name):
    case = CASES[name]()
    return case.apply_fn, jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), case.params), case.inputs


def _kernel(apply_fn, params, x1, x2=None, **options):
    return ntkft.empirical_ntk(apply_fn, params, x1, x2, outputs="full", method="factors", check=False, **options)


@cache
def _whole(name):
    """The kernel of all examples at once, that the others are compared with."""
    return _kernel(*_single(name))


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_padding_changes_nothing(name):
    apply_fn, params, inputs = _single(name)
    short = {key: array[:, :4] * (np.arange(4) < 4) for key, array in inputs.items()}
    long = {key: np.pad(array, ((0, 0), (0, 2))) for key, array in short.items()}
    assert kernel_error(_kernel(apply_fn, params, long).total, _kernel(apply_fn, params, short).total) <= INVARIANCE_F32


@pytest.mark.parametrize("name", ATTENTION)
def test_the_order_of_examples_is_the_order_of_rows(name):
    apply_fn, params, inputs = _single(name)
    order = np.array([3, 0, 6, 2, 5, 1, 4])
    mixed = _kernel(apply_fn, params, take_examples(inputs, order)).total
    assert kernel_error(mixed, _whole(name).total[order][:, :, order]) <= INVARIANCE_F32


@pytest.mark.parametrize("tile", [3, 4, 7])
@pytest.mark.parametrize("name", ATTENTION)
def test_tiles_with_and_without_a_remainder_change_nothing(name, tile):
    tiled = _kernel(*_single(name), tile=tile)
    assert tiled.plan.tiles == {3: 6, 4: 3, 7: 1}[tile]
    assert kernel_error(tiled.total, _whole(name).total) <= INVARIANCE_F32
    assert np.array_equal(tiled.matrix(), tiled.matrix().T)


@pytest.mark.parametrize("tokens", [6, 18])
def test_examples_differentiated_at_once_change_nothing(tokens, monkeypatch):
    whole = _whole("bert")
    monkeypatch.setattr(Host, "tokens", tokens)
    few = _kernel(*_single("bert"))
    assert few.plan.micro_batch < whole.plan.micro_batch
    assert kernel_error(few.total, whole.total) <= INVARIANCE_F32


@pytest.mark.parametrize("name", ATTENTION)
def test_groups_sum_to_the_total_and_a_rectangle_is_a_part_of_the_square(name):
    apply_fn, params, inputs = _single(name)
    groups = {"tables": "token|position", "rest": "^(?!.*(token|position))"}
    kernel = _kernel(apply_fn, params, inputs, groups=groups)
    assert kernel_error(sum(kernel.groups.values()), kernel.total) <= INVARIANCE_F32
    rectangle = _kernel(apply_fn, params, take_examples(inputs, slice(0, 5)), take_examples(inputs, slice(5, 7)))
    assert np.abs(rectangle.total - kernel.total[:5, :, 5:]).max() <= INVARIANCE_F32 * np.abs(kernel.total).max()


@pytest.mark.parametrize("name", ATTENTION)
def test_a_kernel_is_positive_semi_definite_up_to_rounding(name):
    values = np.linalg.eigvalsh(np.asarray(_whole(name).matrix(), np.float64))
    assert values[0] >= -1e-6 * values[-1]


def test_two_runs_give_the_same_bytes(compiled_anew):
    assert _kernel(*_single("bert")).total.tobytes() == _whole("bert").total.tobytes()
