"""`ntkft hmm`: risk of a tuned head over the width of the representation, theory beside Monte Carlo."""

from pathlib import Path

from ntkft._errors import InputError
from ntkft.cli.console import emit, say, table
from ntkft.hmm import HeadRisk, SimulatedRisk, complexity_sweep, rotating_hmm, simulate_head, width_grid
from ntkft.plots.hmm import risk_over_width
from ntkft.plots.style import save
from ntkft.report.record import to_json


def hmm(
    *,
    n: int,
    d: int,
    rho: float,
    sigma_u: float,
    widths: str,
    reps: int,
    seed: int,
    ridge: float = 0.0,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Head tuning on a Gaussian hidden Markov model: exact risk and Monte Carlo at every width.

    Args:
        n: training examples of the head.
        d: dimension of the hidden state.
        rho: how much of a state the next one keeps; transitions are rho times a rotation, 0 ≤ rho < 1.
        sigma_u: standard deviation of the noise in the representation.
        widths: widths p of the representation, separated by commas.
        reps: training sets drawn for each width; the model stays the same.
        seed: of the model and of the training sets.
        ridge: penalty of the head, of (1/n)·squared error + ridge·squared norm; 0 fits the head of least norm.
        out: folder for hmm.json and risk.png.
        json: print the result as JSON.
    """
    chosen = _widths(widths)
    setting = {"n": n, "d": d, "rho": rho, "sigma_u": sigma_u, "ridge": ridge, "seed": seed}
    theory = complexity_sweep(chosen, **setting)
    simulated = [simulate_head(rotating_hmm(d, p, rho, sigma_u, seed), n, ridge, reps=reps, seed=seed) for p in chosen]
    rows = [_row(risk, found) for risk, found in zip(theory, simulated, strict=True)]
    record = setting | {"reps": reps, "rows": rows}
    if out is not None:
        grid = sorted({*width_grid(n, max(chosen)), *chosen})
        model = f"d = {d}, ρ = {rho:g}, σ_u = {sigma_u:g}, seed {seed}"
        save(risk_over_width(complexity_sweep(grid, **setting), simulated, model), out / "risk.png")
        (out / "hmm.json").write_text(to_json(record))
        say(f"wrote {out}/hmm.json, risk.png")
    shown = table(
        f"Head tuned on {n} examples, {reps} draws; the total risk is noise + excess",
        ("p", "noise", "bias", "variance", "excess, theory", "excess, Monte Carlo"),
        [
            (risk.p, f"{risk.noise:.4g}", f"{risk.bias:.4g}", f"{risk.variance:.4g}", f"{risk.excess:.4g}",
             f"{found.excess:.4g} ± {found.standard_error:.2g}")
            for risk, found in zip(theory, simulated, strict=True)
        ],
    )  # fmt: skip
    emit(record, as_json=json, tables=[shown])


def _row(risk: HeadRisk, found: SimulatedRisk) -> dict[str, float]:
    return {
        "p": risk.p,
        "noise": risk.noise,
        "bias": risk.bias,
        "variance": risk.variance,
        "excess_theory": risk.excess,
        "excess_mc": found.excess,
        "excess_mc_se": found.standard_error,
    }


def _widths(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--widths: got {text!r}; wanted whole numbers of at least 1 with commas, such as 8,32,200")
    return [int(part) for part in parts]
