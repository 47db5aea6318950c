"""A view follows the elements of an array through rearrangements: against the elements themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkft.kernels.factors.views import geometry, rearrange, repeats, whole

SHAPE = (4, 6, 2)

PROGRAMS = {
    "transpose": lambda x: x.transpose(2, 0, 1),
    "reshape": lambda x: x.reshape(24, 2),
    "merge": lambda x: x.reshape(4, 12).T,
    "slice": lambda x: x[1:3, ::2],
    "squeeze": lambda x: x[2],
    "split": lambda x: jnp.split(x, 3, axis=1)[1],
    "reverse": lambda x: jax.lax.rev(x, (1,)),
    "cast": lambda x: x.astype(jnp.float32).astype(jnp.bfloat16),
    "new axes": lambda x: x[:, None, :, None],
    "heads": lambda x: x.reshape(4, 3, 2, 2).transpose(1, 0, 2, 3)[1:].reshape(2, 4, 4),
}


def _follow(program, view):
    """The view at the program's output, following every equation."""
    jaxpr = jax.make_jaxpr(program)(jnp.zeros(view.shape)).jaxpr
    views = {jaxpr.invars[0]: view}
    for equation in jaxpr.eqns:
        parts = rearrange(equation, views[equation.invars[0]])
        assert parts is not None, equation
        views.update(zip(equation.outvars, parts, strict=True))
    return views[jaxpr.outvars[0]]


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_a_view_holds_the_elements_that_the_program_holds(name):
    program = PROGRAMS[name]
    base = whole(SHAPE)
    view = _follow(program, base)
    origin = base.__array_interface__["data"][0]
    start = view.__array_interface__["data"][0] - origin
    places = sum(np.indices(view.shape)[i] * view.strides[i] for i in range(view.ndim)) + start
    elements = np.asarray(program(jnp.arange(float(np.prod(SHAPE))).reshape(SHAPE)), np.float64)
    assert np.array_equal(places, elements)


def test_a_reshape_that_would_copy_is_no_view():
    view = _follow(lambda x: x.transpose(1, 0, 2), whole(SHAPE))
    equation = jax.make_jaxpr(lambda x: x.reshape(24, 2))(jnp.zeros((6, 4, 2))).jaxpr.eqns[0]
    assert rearrange(equation, view) is None


def test_arithmetic_is_no_rearrangement():
    equation = jax.make_jaxpr(lambda x: x * 2)(jnp.zeros(SHAPE)).jaxpr.eqns[0]
    assert rearrange(equation, whole(SHAPE)) is None
    rounding = jax.make_jaxpr(lambda x: x.astype(jnp.int32))(jnp.zeros(SHAPE)).jaxpr.eqns[0]
    assert rearrange(rounding, whole(SHAPE)) is None


def test_equal_geometry_means_equal_elements_in_equal_order():
    base = whole((4, 6))
    assert geometry(base) == geometry(base.reshape(24)) == geometry(base.reshape(2, 2, 6)[:, :, None])
    assert geometry(base) != geometry(base.T)
    assert geometry(base[:, :3]) != geometry(base[:, 3:].T)


def test_a_broadcast_repeats_and_nothing_else_does():
    base = whole((1, 6))
    assert repeats(np.broadcast_to(base, (5, 6)))
    assert not repeats(base)
    assert not repeats(whole((5, 6))[:, ::2])


def test_a_view_occupies_no_memory():
    before = _resident()
    views = [whole((1 << 16, 1 << 14)).T.reshape(1 << 7, 1 << 7, 1 << 16) for _ in range(4)]
    assert len(views) == 4
    assert _resident() - before < 1 << 26  # four gigabytes of bytes that nobody touched


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
