"""The weights' effect is measured and not taken for granted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from core.metrics.calibration import calibrate, fit_temperature
from core.metrics.classification import log_loss_terms
from core.metrics.prior_correction import effective_prior, measure_weights_effect

NAMES = ("covid", "normal", "pneumonia")
PRIOR = {"covid": 0.1, "normal": 0.3, "pneumonia": 0.6}


def sample(n=20_000, seed=0):
    """True posteriors with the shares of PRIOR, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    shares = np.array(list(PRIOR.values()))
    y = rng.choice(3, size=n, p=shares)
    score = 1.2 * np.eye(3)[y] + rng.normal(0, 1, (n, 3))
    # Of unit normals that differ by 1.2 in one place: the log likelihood ratio is 1.2 x score.
    return softmax(1.2 * score + np.log(shares), axis=1), y


@pytest.mark.parametrize("effect", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
def test_a_known_effect_is_found_whatever_the_temperature(effect, temperature):
    p, y = sample()
    shares = np.array(list(PRIOR.values()))
    # What calibrate undoes: log q = T log p - effect x log prior.
    q = softmax(temperature * np.log(p) - effect * np.log(shares), axis=1)
    assert measure_weights_effect(y, q, PRIOR, NAMES) == pytest.approx(effect, abs=0.06)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_no_other_effect_has_a_smaller_loss(seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, 60)
    q = softmax(rng.normal(0, 1.5, (60, 3)) + np.eye(3)[y], axis=1)
    found = measure_weights_effect(y, q, PRIOR, NAMES)
    assert 0 <= found <= 1

    def loss(effect):
        moved = calibrate(q, list(effective_prior(PRIOR, effect).values()))
        return log_loss_terms(y, calibrate(moved, None, fit_temperature(y, moved))).mean()

    assert loss(found) <= min(loss(effect) for effect in np.linspace(0, 1, 21)) + 1e-6


def test_the_effective_prior_lies_between_even_shares_and_the_prior():
    assert effective_prior(PRIOR, 1.0) == pytest.approx(PRIOR)
    assert effective_prior(PRIOR, 0.0) == pytest.approx(dict.fromkeys(NAMES, 1 / 3))
    half = effective_prior(PRIOR, 0.5)
    assert half["covid"] / half["pneumonia"] == pytest.approx((0.1 / 0.6) ** 0.5)
    assert effective_prior({"a": 0.0, "b": 1.0}, 0.5) == {"a": 0.0, "b": 1.0}
