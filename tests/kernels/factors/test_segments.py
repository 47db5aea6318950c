"""Cutting a program changes what is held and when, never the kernel."""

import itertools
from functools import cache

import jax
import numpy as np
import pytest

import ntkft
from ntkft._errors import InputError
from ntkft._tree import take_examples
from ntkft.kernels.factors import planning
from ntkft.kernels.factors.capture import capture
from ntkft.kernels.factors.host import Host
from ntkft.kernels.factors.segments import Cuts, choose_cuts, trace_flow
from ntkft.models import random_model, read_config, readouts
from ntkft.report import workload
from tests.cases import CASES
from tests.references import contract, flat_jacobian
from tests.tolerances import INVARIANCE_F32, KERNEL_F32, KERNEL_F64, kernel_error


def _deep(layers=4):
    config = read_config(
        {
            "model_type": "gpt2", "vocab_size": 30, "n_embd": 16, "n_layer": layers, "n_head": 2, "n_inner": 32,
            "n_positions": 12,
        }
    )  # fmt: skip
    model = random_model(config, readout=readouts.linear(2, pool="last", scale=1.0, seed=0, bias=True), seed=0)
    ids = np.random.default_rng(0).integers(0, 30, (6, 12)).astype(np.int32)
    return model, {"input_ids": ids, "attention_mask": np.ones_like(ids)}


@pytest.mark.parametrize(
    ("name", "every"),
    [("bert", 1), ("bert", 3), ("fused_decoder", 3), ("tied_decoder", 2), ("block_thrice", 1), ("block_thrice", 2),
     ("scan_remat", 1), ("scalar_leaves", 1), ("scalar_leaves", 2)],
)  # fmt: skip
def test_a_program_cut_in_many_places_gives_the_same_kernel(name, every, monkeypatch):
    case = CASES[name]()
    x1 = take_examples(case.inputs, slice(0, 4))

    def cut(flow, held, room, seconds):
        places = _all_over(flow)
        return Cuts(places, places[::every])

    monkeypatch.setattr(planning, "choose_cuts", cut)
    kernel = ntkft.empirical_ntk(case.apply_fn, case.params, x1, outputs="full", method="factors", check=False)
    assert kernel.plan.pieces > 3
    jacobian = flat_jacobian(case.apply_fn, case.params, case.inputs)[:4]  # a program that other tests compile too
    assert kernel_error(kernel.total, contract(jacobian, jacobian, "full")) <= KERNEL_F64


def _all_over(flow):
    """Positions at which something crosses, evenly spread."""
    crossed = tuple(p for p in range(1, len(flow.program.equations)) if flow.crossing(p))
    return crossed[:: 1 + len(crossed) // 15]


def test_cuts_fall_where_only_the_residual_stream_crosses():
    model, inputs = _deep()
    flow = trace_flow(capture(model.apply_fn, model.params, inputs), 2)
    whole = flow.factor_bytes(range(len(flow.program.sites)))

    def cost(cuts):  # of a budget for a quarter of all factors
        bounds = [0, *cuts.places, len(flow.program.equations)]
        sites = [
            [i for i, s in enumerate(flow.program.sites) if a <= s.equation < b] for a, b in itertools.pairwise(bounds)
        ]
        return max(flow.factor_bytes(chosen) for chosen in sites)

    cuts = choose_cuts(flow, cost, int(whole / 3), _count)
    assert cuts is not None
    assert len(cuts.places) >= 3
    assert cuts.kept == cuts.places
    stream = 12 * 16 * 4
    assert {flow.cut_bytes(cut) for cut in cuts.places} == {stream}
    assert all(flow.cotangent_bytes(cut) == 2 * stream for cut in cuts.places)


def test_where_all_cuts_are_too_much_those_kept_are_where_the_residual_stream_crosses():
    model, inputs = _deep(12)
    flow = trace_flow(capture(model.apply_fn, model.params, inputs), 2)

    def held(cuts):  # values stored and the factors of one segment, as `planning` counts them
        return planning._peak_bytes(flow, 1, 0, 0, cuts)

    def least(room, last=None):
        while (cuts := choose_cuts(flow, held, room, _count)) is not None:
            room, last = held(cuts) - 1, cuts
        return last

    cuts = least(held(Cuts()))
    assert cuts is not None
    assert set(cuts.kept) < set(cuts.places)
    assert {flow.cut_bytes(cut) for cut in cuts.kept} == {12 * 16 * 4}
    assert held(cuts) < 0.8 * held(Cuts(cuts.places, cuts.places))
    covered = [i for stretch in cuts.stretches for i in stretch]
    assert covered == list(range(len(flow.segments(cuts))))
    assert [cuts.places[stretch.start - 1] for stretch in cuts.stretches[1:]] == list(cuts.kept)


def test_of_the_cuts_that_fit_those_of_least_time_are_chosen():
    model, inputs = _deep(6)
    flow = trace_flow(capture(model.apply_fn, model.params, inputs), 2)

    def chosen(seconds, room=10**9):
        cuts = choose_cuts(flow, lambda cuts: planning._peak_bytes(flow, 1, 0, 0, cuts), room, seconds)
        assert cuts is not None
        return cuts

    few, many = chosen(_count), chosen(lambda cuts: -_count(cuts))
    assert few == Cuts()
    assert len(many.places) >= 6
    held = planning._peak_bytes(flow, 1, 0, 0, many)
    assert chosen(_count, held).places  # no room for all at once
    assert planning._peak_bytes(flow, 1, 0, 0, chosen(_count, held)) <= held


def test_masks_and_positions_are_computed_again_and_not_stored():
    model, inputs = _deep()
    flow = trace_flow(capture(model.apply_fn, model.params, inputs), 2)
    crossing = {v for p in range(len(flow.program.equations)) for v in flow.crossing(p)}
    assert all(flow.stored[v] for v in crossing)  # nothing crosses that carries no cotangent


MIDDLE = "^layers/[12]/"
PARTS = {"middle": MIDDLE, "other layers": "^layers/(?![12]/)", "around them": "^(?!layers/)"}
CHOSEN = {".": tuple(PARTS), "^layers/": ("middle", "other layers"), MIDDLE: ("middle",)}


@cache
def _parts(layers):
    """Kernels of the parts of the model, from its Jacobian."""
    model, inputs = _deep(layers)
    return ntkft.empirical_ntk(
        model.apply_fn, model.params, inputs, outputs="full", groups=PARTS, method="jacobian", check=False
    ).groups


@pytest.mark.parametrize("weights", CHOSEN)
def test_layers_compile_once_whatever_stands_before_and_after_them(weights, monkeypatch):
    monkeypatch.setattr(Host, "overhead", lambda self, held, again, segments, equations: equations)
    compiled = []
    for layers in (3, 5):
        model, inputs = _deep(layers)
        apply_fn, params = workload.only(model.apply_fn, model.params, weights)
        count = [0]
        original = jax.jit

        def counting(function, *, count=count, original=original, **options):
            count[0] += 1
            return original(function, **options)

        with monkeypatch.context() as patch:
            patch.setattr(jax, "jit", counting)
            kernel = ntkft.empirical_ntk(apply_fn, params, inputs, outputs="full", method="factors", check=False)
        compiled.append(count[0])
        assert kernel.plan.pieces > 2
        whole = sum(_parts(layers)[part] for part in CHOSEN[weights])
        assert kernel_error(kernel.total, whole) <= KERNEL_F32
    assert compiled[1] <= compiled[0] <= 8


def test_a_budget_that_holds_no_cut_is_refused_with_what_to_do():
    model, inputs = _deep()
    with pytest.raises(InputError, match=r"examples at once do not fit .* raise memory, or lower tile"):
        ntkft.empirical_ntk(
            model.apply_fn, model.params, inputs, outputs="full", method="factors", memory=20_000, tile=6, check=False
        )


def test_tiles_are_halved_until_one_fits_the_budget():
    model, inputs = _deep()
    whole = ntkft.empirical_ntk(model.apply_fn, model.params, inputs, outputs="trace", method="factors", check=False)
    assert whole.plan.tiles == 1
    small = ntkft.empirical_ntk(
        model.apply_fn, model.params, inputs, outputs="trace", method="factors", memory=130_000, check=False
    )
    assert small.plan.tiles > 1
    assert small.plan.bytes <= 130_000
    assert kernel_error(small.total, whole.total) <= INVARIANCE_F32


def _count(cuts):
    return len(cuts.places)
