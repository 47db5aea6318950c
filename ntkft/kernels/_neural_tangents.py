"""The fence around neural-tangents 0.6.5, whose last release predates the JAX that we run on.

neural-tangents is our independent reference: another implementation of the same kernels and dynamics. It reaches into
parts of JAX that have since moved or gone. This file, and no other, knows which:

- *to import*, it needs a handful of old names. They exist only while the import runs; afterwards JAX's namespaces
  are as they were.
- *to run*, some functions look up old names in modules that they hold by name (`ad`, `core`, `jax`, `sp`). In those
  neural-tangents modules, and nowhere in JAX, the name is rebound to an `_Overlay` that adds what is missing.
- its TensorFlow front end (`neural_tangents.experimental`) is replaced by an empty module, so that TensorFlow is
  never imported.

Linearised programs are handed to its implementation 3 with calls inlined and `split` written as slices, since its
backward pass knows neither. That is what lets it differentiate a fused query-key-value projection.
"""

import contextlib
import functools
import importlib
import math
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.core
import jax.extend.core
import jax.interpreters.ad
import scipy.linalg

from ntkft.kernels.factors.inline import CALLS


@functools.cache
def neural_tangents() -> types.ModuleType:
    """The package `neural_tangents`, importable and working on this JAX.

    Cost: about one second on the first call, nothing afterwards. Raises `ImportError` with one sentence when this
    JAX has moved further than the fence knows; nothing else in `ntkft` depends on it.
    """
    try:
        with _names_of_old_jax(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            package = importlib.import_module("neural_tangents")
            empirical = importlib.import_module("neural_tangents._src.empirical")
            predict = importlib.import_module("neural_tangents._src.predict")
    except (ImportError, AttributeError) as error:
        for name in [n for n in sys.modules if n.split(".")[0] == "neural_tangents"]:
            del sys.modules[name]
        raise ImportError(
            f"neural-tangents 0.6.5 cannot be imported on JAX {jax.__version__} ({error}); "
            "use method='jacobian', which does not need it, or an older JAX (0.10 is tested)"
        ) from error
    _overlay_runtime_names(empirical, predict)
    return package


class _Overlay(types.ModuleType):
    """A view of a module with some names added or replaced; the module itself stays untouched."""

    def __init__(self, base: Any, **names: Any):
        super().__init__(base.__name__)
        self.__dict__["_base"] = base
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_base"], name)


class _Absent:
    """Stands for classes that no longer exist: nothing is an instance of it."""


@contextlib.contextmanager
def _names_of_old_jax() -> Iterator[None]:
    """Names that neural-tangents imports, put in place for the length of its import only."""
    extend = jax.extend.core
    util = types.ModuleType("jax.util")
    util.safe_map = _safe_map  # pyright: ignore[reportAttributeAccessIssue]
    util.safe_zip = _safe_zip  # pyright: ignore[reportAttributeAccessIssue]
    # The TensorFlow front end: an empty package, and the two names that its parent re-exports.
    experimental = types.ModuleType("neural_tangents.experimental")
    added = [
        *[(jax.core, name, getattr(extend, name)) for name in ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")],
        (jax.interpreters.ad, "zeros_like_p", extend.Primitive("zeros_like")),
        (jax, "util", util),
    ]
    missing = object()
    before = [(module, name, module.__dict__.get(name, missing)) for module, name, _ in added]
    util_before = sys.modules.get("jax.util", missing)
    for module, name, value in added:
        setattr(module, name, value)
    sys.modules["jax.util"] = util
    sys.modules["neural_tangents.experimental"] = experimental
    try:
        yield
    finally:
        for module, name, value in before:
            if value is missing:
                delattr(module, name)
            else:
                setattr(module, name, value)
        if util_before is missing:
            del sys.modules["jax.util"]


def _overlay_runtime_names(empirical: Any, predict: Any) -> None:
    """Names that neural-tangents looks up while it runs, rebound inside its own modules."""
    empirical.ad = _Overlay(
        jax.interpreters.ad,
        linearize=_linearize,
        source_info_util=types.SimpleNamespace(transform_name_stack=lambda _: contextlib.nullcontext()),
        config=types.SimpleNamespace(jax_enable_checks=False),
    )
    empirical.core = _Overlay(jax.core, DShapedArray=_Absent, Var=jax.extend.core.Var)
    empirical.jnp = _Overlay(jax.numpy, size=_size)
    empirical.lu = types.SimpleNamespace(wrap_init=lambda function: function)
    empirical.jax = _Overlay(jax, api_util=types.SimpleNamespace(flatten_fun_nokwargs=_flatten_function))
    empirical._eqn_vjp_fn = _transpose_equation
    eval_context = jax.ensure_compile_time_eval
    predict.jax = _Overlay(jax, core=_Overlay(jax.core, eval_context=eval_context))
    predict.sp = _Overlay(predict.sp, linalg=_Overlay(scipy.linalg, eigvalsh=_eigvalsh))


def _safe_map(function, *sequences):
    return [function(*arguments) for arguments in _safe_zip(*sequences)]


def _safe_zip(*sequences):
    return list(zip(*map(list, sequences), strict=True))


def _size(array) -> int:
    """`jnp.size` also of abstract arrays, which JAX no longer takes."""
    return math.prod(array.shape)


def _eigvalsh(matrix, eigvals):
    """`scipy.linalg.eigvalsh` under the keyword that SciPy 1.14 renamed."""
    return scipy.linalg.eigvalsh(matrix, subset_by_index=eigvals)


def _flatten_function(function, in_tree):
    """`function` over flat arguments and results, and a thunk for the results' tree, known after a call."""
    out_tree = []

    def flat(*leaves):
        results, tree = jax.tree.flatten(function(*jax.tree.unflatten(in_tree, leaves)))
        out_tree[:] = [tree]
        return results

    return flat, lambda: out_tree[0]


def _linearize(function, *primals, has_aux: bool):
    """The old `ad.linearize`: primal outputs, which outputs are unknown, the linear program and its constants."""
    assert not has_aux
    outputs, tangent_map = jax.linearize(function, *primals)
    closed = jax.make_jaxpr(functools.partial(_evaluate_linear, jax.make_jaxpr(tangent_map)(*primals)))(*primals)
    unknown = [types.SimpleNamespace(is_known=lambda: False)] * len(outputs)
    return outputs, unknown, closed.jaxpr, closed.consts


def _evaluate_linear(closed: Any, *arguments: Any) -> list[Any]:
    """Evaluate a closed jaxpr with calls inlined and `split` as slices: one output for each equation."""
    values = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    values |= dict(zip(closed.jaxpr.invars, arguments, strict=True))

    def read(atom):
        return atom.val if isinstance(atom, jax.extend.core.Literal) else values[atom]

    for equation in closed.jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        name = equation.primitive.name
        if name in CALLS:
            inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
            if not isinstance(inner, jax.extend.core.ClosedJaxpr):
                inner = jax.extend.core.ClosedJaxpr(inner, ())
            results = _evaluate_linear(inner, *operands)
        elif name == "split":
            results = _slices(operands[0], **equation.params)
        else:
            results = equation.primitive.bind(*operands, **equation.params)
            results = results if equation.primitive.multiple_results else [results]
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def _slices(operand, sizes, axis):
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        jax.lax.slice_in_dim(operand, start, start + size, axis=axis) for start, size in zip(starts, sizes, strict=True)
    ]


def _transpose_equation(equation: Any, cotangent: Any, *operands: Any) -> Any:
    """Cotangents of one linear equation's operands (None for the known ones)."""
    if equation is None:
        return (cotangent,)
    unknown = [i for i, operand in enumerate(operands) if jax.interpreters.ad.is_undefined_primal(operand)]

    def linear(*arguments):
        filled = list(operands)
        for i, argument in zip(unknown, arguments, strict=True):
            filled[i] = argument
        return equation.primitive.bind(*filled, **equation.params)

    shapes = [jax.ShapeDtypeStruct(operands[i].aval.shape, operands[i].aval.dtype) for i in unknown]
    cotangents = jax.linear_transpose(linear, *shapes)(cotangent)
    result: list[Any] = [None] * len(operands)
    for i, value in zip(unknown, cotangents, strict=True):
        result[i] = value
    return result
