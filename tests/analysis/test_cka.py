"""The debiased CKA against its definition, term by term, in NumPy."""
import itertools

import numpy as np
import pytest
import torch

from sfkd.analysis import debiased_cka, gram, linear_cka


def cka(x, y):
    return debiased_cka(gram(x), gram(y))


def hsic(k, l):
    """The unbiased estimator as a sum over all different samples i, j, q, r (Song et al., JMLR 2012, theorem 2's
    U-statistic): E[K_ij L_ij + K_ij L_qr - 2 K_ij L_iq].
    """
    terms = [k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]) for i, j, q, r in itertools.permutations(range(len(k)), 4)]
    return np.mean(terms)


@pytest.fixture(scope='module')
def features():
    rng = np.random.default_rng(0)
    return rng.normal(size=(7, 3, 2, 2)), rng.normal(size=(7, 5)) + 1


def test_it_is_the_u_statistic(features):
    x, y = features
    k, l = x.reshape(7, -1) @ x.reshape(7, -1).T, y @ y.T
    expected = hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))
    assert cka(*map(torch.from_numpy, features)) == pytest.approx(expected, rel=1e-10)


def test_rotation_scale_and_shift_of_the_features_change_nothing(features):
    x, y = map(torch.from_numpy, features)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    assert cka(x, 0.3 * y @ rotation) == pytest.approx(cka(x, y), rel=1e-10)
    assert cka(x, y + torch.arange(5)) == pytest.approx(cka(x, y), rel=1e-8)
    assert cka(y, x) == pytest.approx(cka(x, y), rel=1e-10)
    assert cka(y, -2 * y @ rotation) == pytest.approx(1, rel=1e-10)
    assert cka(x, y * torch.tensor([1, 1, 1, 1, 9])) != pytest.approx(cka(x, y), rel=1e-3)  # no rotation


def test_unrelated_features_are_at_zero_where_the_biased_estimator_is_near_one():
    torch.manual_seed(0)
    x, y = torch.randn(64, 5000), torch.randn(64, 5000)
    assert abs(cka(x, y)) < 0.1 and linear_cka(x, y) > 0.9


def test_constant_features_have_none_and_three_samples_are_too_few():
    assert np.isnan(cka(torch.ones(6, 3), torch.randn(6, 3)))
    with pytest.raises(ValueError, match='4 samples'):
        cka(torch.randn(3, 2), torch.randn(3, 2))
