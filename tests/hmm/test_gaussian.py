import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.hmm import gaussian_hmm, rotating_hmm
from tests.tolerances import CLOSED_FORM

A = np.array([[0.5, 0.4, 0.0], [-0.3, 0.6, 0.1], [0.2, 0.0, -0.7]])
W = np.random.default_rng(0).standard_normal((5, 3))
SKEWED = gaussian_hmm(A, W, 0.7, 0.4)
MODELS = {
    "skewed": SKEWED,
    "rotating": rotating_hmm(4, 9, 0.8, 1.3, seed=2),
    "narrow": rotating_hmm(6, 2, 0.5, 0.2, seed=3),
    "memoryless": rotating_hmm(2, 3, 0.0, 1.0, seed=4),
}


@pytest.fixture(params=MODELS, ids=str)
def model(request):
    return MODELS[request.param]


def test_population_quantities_are_their_definitions(model):
    a, w, s = model.transition, model.emission, model.state_covariance
    sigma = w @ s @ w.T + model.sigma_u**2 * np.eye(model.p)
    cross = w @ s @ a  # Cov(x, y)
    output = a.T @ s @ a + model.sigma_epsilon2 * np.eye(model.d)
    for actual, expected in (
        (model.covariance, sigma),
        (model.best_head, np.linalg.solve(sigma, cross)),
        (model.noise_covariance, output - cross.T @ np.linalg.solve(sigma, cross)),
        (model.posterior_covariance, s - s @ w.T @ np.linalg.solve(sigma, w @ s)),
        (model.state_root @ model.state_root, s),
    ):
        np.testing.assert_allclose(actual, expected, atol=CLOSED_FORM)


def test_the_state_is_stationary(model):
    s = model.state_covariance
    moved = model.transition.T @ s @ model.transition + model.sigma_epsilon2 * np.eye(model.d)
    np.testing.assert_allclose(moved, s, atol=CLOSED_FORM)


def test_a_chain_arrives_at_the_stationary_covariance():
    generator, chains = np.random.default_rng(0), 40_000
    z = np.zeros((chains, 3))
    for _ in range(80):
        z = z @ A + np.sqrt(0.4) * generator.standard_normal(z.shape)
    s = SKEWED.state_covariance
    error = np.sqrt((np.outer(np.diag(s), np.diag(s)) + s**2) / chains)  # of a covariance of Gaussians
    assert np.all(np.abs(z.T @ z / chains - s) < 5 * error)


def test_a_rotating_model_is_the_general_one_with_unit_states():
    made = rotating_hmm(4, 9, 0.8, 1.3, seed=2)
    general = gaussian_hmm(made.transition, made.emission, 1.3, 1 - 0.8**2)
    np.testing.assert_allclose(general.state_covariance, np.eye(4), atol=CLOSED_FORM)
    np.testing.assert_allclose(made.transition @ made.transition.T, 0.64 * np.eye(4), atol=CLOSED_FORM)


def test_a_sweep_widens_one_representation():
    narrow, wide = rotating_hmm(4, 3, 0.8, 1.0, seed=2), rotating_hmm(4, 9, 0.8, 1.0, seed=2)
    np.testing.assert_array_equal(narrow.transition, wide.transition)
    np.testing.assert_array_equal(narrow.emission, wide.emission[:3])
    assert not np.array_equal(wide.emission, rotating_hmm(4, 9, 0.8, 1.0, seed=3).emission)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"emission": W.T}, r"got a transition of shape \[3, 3\], an emission of \[3, 5\]; wanted d×d and p×d"),
        ({"transition": 2 * A}, "the spectral radius of the transition is .*; wanted it below 1"),
        ({"transition": np.full((3, 3), np.nan)}, "has entries that are NaN or infinite"),
        ({"sigma_u": 0.0}, "sigma_u is 0; wanted a finite number above zero"),
        ({"sigma_epsilon2": -1.0}, "sigma_epsilon2 is -1; wanted a finite variance"),
    ],
)
def test_models_without_a_stationary_state_or_with_bad_noise_are_refused(change, message):
    arguments = {"transition": A, "emission": W, "sigma_u": 1.0, "sigma_epsilon2": 1.0} | change
    with pytest.raises(InputError, match=message):
        gaussian_hmm(**arguments)


def test_every_bad_number_of_a_rotating_model_is_named():
    with pytest.raises(InputError, match=r"(?s)5 problems.*sigma_u is nan.*d is 0.*p is -1.*rho is 1;.*seed is -2"):
        rotating_hmm(0, -1, 1.0, float("nan"), seed=-2)
