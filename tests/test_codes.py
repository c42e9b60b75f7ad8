"""Eq. 2, Eq. 3, energies, Gram matrices and rank matching: properties and NumPy oracles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fmi import codes
from fmi.device.mxnet import mx

SHAPE = (1, 5, 3, 4)
code_arrays = arrays(np.float32, SHAPE, elements=st.floats(0, 1000, width=32))
filters = st.lists(st.integers(0, SHAPE[1] - 1), min_size=1, max_size=7)
seeds = st.integers(0, 2**32 - 1)


def nd(values, dtype="float32"):
    return mx.nd.array(values, dtype=dtype)


@settings(deadline=None)
@given(code_arrays, filters)
def test_isolate_leaves_one_map_with_the_sum_of_all(code, chosen):
    targets = codes.isolate(nd(code), chosen).asnumpy()
    assert targets.shape == (len(chosen), *SHAPE[1:])
    for index, target in zip(chosen, targets):
        np.testing.assert_allclose(target[index], code[0].sum(axis=0), rtol=1e-5)
        assert not np.delete(target, index, axis=0).any()


@settings(deadline=None)
@given(code_arrays, seeds)
def test_reallocate_keeps_zeros_and_total_and_gives_the_shares(code, seed):
    code = np.where(code < 1, 0, code)  # exact zeros, and no map whose sum is next to nothing
    shares = codes.simplex_shares(np.random.RandomState(seed), SHAPE[1])
    changed = codes.reallocate(nd(code), nd(shares[None], "float64")).asnumpy()[0]
    total, energies = code.sum(dtype=np.float64), code[0].sum(axis=(1, 2))
    assert not changed[code[0] == 0].any()
    assert np.isfinite(changed).all()
    active = energies > 0
    np.testing.assert_allclose(
        changed.sum(axis=(1, 2), dtype=np.float64), np.where(active, shares * total, 0), rtol=1e-5
    )
    if active.all():
        np.testing.assert_allclose(changed.sum(dtype=np.float64), total, rtol=1e-5)
    assert codes.silent(nd(code)) == np.flatnonzero(~active).tolist()


def test_reallocate_is_equation_3():
    random = np.random.RandomState(0)
    code = random.uniform(0, 9, SHAPE)
    shares = random.uniform(0, 1, (2, SHAPE[1]))
    changed = codes.reallocate(nd(code), nd(shares, "float64")).asnumpy()
    for draw in range(2):
        for c in range(SHAPE[1]):
            wanted = shares[draw, c] * code[0, c] / code[0, c].sum() * code[0].sum()
            np.testing.assert_allclose(changed[draw, c], wanted, rtol=1e-5)


@settings(deadline=None)
@given(seeds, st.integers(1, 600))
def test_simplex_shares(seed, channels):
    shares = codes.simplex_shares(np.random.RandomState(seed), channels)
    assert shares.shape == (channels,)
    assert (shares >= 0).all()
    assert shares.sum() == pytest.approx(1)


def test_normal_shares_are_half_negative_as_in_the_2016_code():
    shares = codes.normal_shares(np.random.RandomState(0), 5000)
    assert shares.sum() == pytest.approx(1)
    assert 0.45 < (shares < 0).mean() < 0.55


@settings(deadline=None)
@given(arrays(np.float32, (2, 3, 4, 5), elements=st.floats(-100, 100, width=32)))
def test_energy_and_gram_against_numpy(code):
    flat = code.reshape(2, 3, 20).astype(np.float64)
    np.testing.assert_allclose(codes.energy(nd(code)).asnumpy(), flat.sum(2), rtol=1e-4, atol=1e-2)
    wanted = np.einsum("bip,bjp->bij", flat, flat)
    np.testing.assert_allclose(codes.gram(nd(code)).asnumpy(), wanted, rtol=1e-4, atol=0.5)


@settings(deadline=None)
@given(seeds)
def test_rank_match_takes_the_styles_means_and_keeps_the_contents_patterns(seed):
    random = np.random.RandomState(seed)
    content = random.uniform(0, 9, SHAPE).astype(np.float32)
    style = random.uniform(0, 50, (1, SHAPE[1], 2, 7)).astype(np.float32)
    matched = codes.rank_match(nd(content), nd(style)).asnumpy()[0]
    np.testing.assert_allclose(matched.mean(axis=(1, 2)), style[0].mean(axis=(1, 2)), rtol=1e-4)
    ranks = np.argsort(np.argsort(style[0].sum(axis=(1, 2))))
    by_energy = content[0][np.argsort(content[0].sum(axis=(1, 2)))]
    for channel, rank in enumerate(ranks):
        shape = matched[channel] - matched[channel].mean()
        wanted = by_energy[rank] - by_energy[rank].mean()
        np.testing.assert_allclose(shape, wanted, atol=1e-4)
