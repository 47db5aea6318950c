"""Hidden Markov models of pretraining: risk of tuned heads over model complexity, and what a head can read."""

from ntkft.hmm.discrete import DiscreteHMM, discrete_hmm, permutation_hmm, sample_tokens
from ntkft.hmm.gaussian import GaussianHMM, gaussian_hmm, rotating_hmm
from ntkft.hmm.head import RecoveringHead, fit_head, recovering_head
from ntkft.hmm.posteriors import Posteriors, forward_backward, token_probabilities
from ntkft.hmm.risk import HeadRisk, complexity_sweep, head_risk, width_grid
from ntkft.hmm.simulation import SimulatedRisk, simulate_head

__all__ = [
    "DiscreteHMM",
    "GaussianHMM",
    "HeadRisk",
    "Posteriors",
    "RecoveringHead",
    "SimulatedRisk",
    "complexity_sweep",
    "discrete_hmm",
    "fit_head",
    "forward_backward",
    "gaussian_hmm",
    "head_risk",
    "permutation_hmm",
    "recovering_head",
    "rotating_hmm",
    "sample_tokens",
    "simulate_head",
    "token_probabilities",
    "width_grid",
]
