"""Eq. 2, Eq. 3, energies, Gram matrices and rank matching: properties and NumPy oracles."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fmi import codes
from fmi.device.mxnet import mx
from fmi.errors import InputError

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


def test_a_map_whose_sum_is_not_positive_stays_0_and_is_reported():
    """The others share what they have themselves, with the sign of their shares."""
    code = np.ones(SHAPE, np.float32)
    code[0, 1] = -3  # its sum is -36
    code[0, 2] = 0
    code[0, 3, 0, 0] = -11  # its sum is 0
    shares = np.array([[0.25, 0.5, 0.125, 0.0625, 0.0625], [-1, 1, 1, 1, -1]])
    changed = codes.reallocate(nd(code), nd(shares, "float64")).asnumpy()
    assert codes.silent(nd(code)) == [1, 2, 3]
    assert not changed[:, 1:4].any()
    for share, found in zip(shares, changed):
        np.testing.assert_allclose(found[[0, 4]].sum(axis=(1, 2)), 24 * share[[0, 4]], rtol=1e-6)
    nothing = codes.reallocate(nd(-code[:, 1:2] - 6), nd([[1.0]], "float64"))
    assert codes.silent(nd(-code[:, 1:2] - 6)) == [0]
    assert not nothing.asnumpy().any()


def test_silent_and_reallocate_agree_where_float32_sums_would_not():
    code = np.full(SHAPE, 1e-9, np.float32)
    code[0, 0, 0, :2] = 1e8, -1e8  # the rest of its sum is lost in float32
    changed = codes.reallocate(nd(code), nd(np.full((1, 5), 0.2), "float64")).asnumpy()[0]
    assert codes.silent(nd(code)) == [c for c in range(5) if not changed[c].any()] == []


def drawn(distribution, layer="relu4_1", seed=0, draw=0, channels=512):
    return codes.shares(distribution, channels, seed, draw, layer)


@pytest.mark.parametrize("distribution", ["normal", "simplex"])
def test_shares_are_those_of_the_distribution_and_repeatable(distribution):
    found = drawn(distribution, seed=3, draw=2)
    assert found.shape == (512,) and found.dtype == np.float64
    assert found.sum() == pytest.approx(1)
    assert ((found < 0).any()) == (distribution == "normal")
    random = np.random.RandomState([3, 2, zlib.crc32(b"relu4_1")])
    wanted = {"normal": codes.normal_shares, "simplex": codes.simplex_shares}[distribution]
    np.testing.assert_array_equal(found, wanted(random, 512))
    np.testing.assert_array_equal(found, drawn(distribution, seed=3, draw=2))


@pytest.mark.parametrize("distribution", ["normal", "simplex"])
def test_shares_of_layers_draws_and_seeds_are_independent(distribution):
    places = [
        (layer, seed, draw)
        for layer in ("relu3_1", "relu4_1", "relu5_1")
        for seed in (0, 1, 2)
        for draw in (0, 1, 2)
    ]
    rows = np.stack([drawn(distribution, *place) for place in places])
    correlation = np.corrcoef(rows)[np.triu_indices(len(places), k=1)]
    assert np.abs(correlation).max() < 5.5 / np.sqrt(512)  # standard deviation: 1 / sqrt(512)
    assert 0.9 < correlation.std() * np.sqrt(512) < 1.1
    narrow, wide = drawn(distribution, "relu2_1", channels=128), rows[0]
    assert np.abs(np.corrcoef(narrow, wide[:128])[0, 1]) < 5 / np.sqrt(128)


def test_an_unknown_distribution_is_refused():
    with pytest.raises(InputError, match="gamma") as caught:
        drawn("gamma")
    assert "normal" in str(caught.value) and "simplex" in str(caught.value)


@settings(deadline=None)
@given(seeds, st.integers(1, 600))
def test_simplex_shares(seed, channels):
    shares = codes.simplex_shares(np.random.RandomState(seed), channels)
    assert shares.shape == (channels,)
    assert (shares >= 0).all()
    assert shares.sum() == pytest.approx(1)


def test_both_distributions_are_those_of_numpy():
    found = codes.normal_shares(np.random.RandomState(4), 600)
    drawn = np.random.RandomState(4).normal(3, 1000, 600)
    np.testing.assert_allclose(found, drawn / drawn.sum(), rtol=1e-12)
    found = codes.simplex_shares(np.random.RandomState(4), 600)
    drawn = np.random.RandomState(4).exponential(size=600)  # of equal rates: uniform on the simplex
    np.testing.assert_allclose(found, drawn / drawn.sum(), rtol=1e-12)


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
@given(arrays(np.float32, (2, 3, 4, 5), elements=st.floats(0, 100, width=32)))
def test_the_energy_share_of_a_feature_map_against_numpy(code):
    energies = code.astype(np.float64).sum((2, 3))
    for filters in ([0, 0], [2, 1]):
        found = codes.energy_share(codes.energies(nd(code)), filters)
        for row, index in enumerate(filters):
            total = energies[row].sum()
            wanted = energies[row, index] / total if total else np.nan
            np.testing.assert_allclose(found[row], wanted, rtol=1e-9)


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


def test_rank_match_orders_feature_maps_of_equal_energy_by_their_index():
    random = np.random.RandomState(0)
    content, style = random.randint(0, 3, (2, 1, 200, 1, 1)).astype(np.float32)
    content = content * np.ones((1, 1, 2, 2), np.float32)
    content[0, :, 0, 0] += np.arange(200) * 1000  # a mark on each map ...
    content[0, :, 0, 1] -= np.arange(200) * 1000  # ... that its mean does not show
    matched = codes.rank_match(nd(content), nd(style)).asnumpy()[0]
    marks = np.rint(matched[:, 0, 0] / 1000).astype(int)
    by_content, by_style = (
        sorted(range(200), key=lambda c: (code[0, c].mean(), c)) for code in (content, style)
    )
    for place, source in zip(by_style, by_content):
        assert marks[place] == source


def test_codes_stay_on_their_device_and_in_their_number_format():
    device = mx.cpu(1)
    code = mx.nd.array(np.random.RandomState(0).uniform(0, 9, SHAPE), ctx=device)
    shares = mx.nd.array([[0.2] * 5], ctx=device, dtype="float64")
    for found in (
        codes.isolate(code, [1, 2]),
        codes.reallocate(code, shares),
        codes.rank_match(code, code),
        codes.energy(code),
        codes.gram(code),
    ):
        assert found.context == device
        assert found.dtype == np.float32
    assert codes.energy(code.astype("float64")).dtype == np.float64
