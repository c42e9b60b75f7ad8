"""Effects, against SciPy, the analysis of variance in full, and data with a known answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.spatial.distance import cdist

from fmi.errors import InputError
from fmi.evidence import effects
from fmi.evidence.effects import cliffs_delta, spearman, trend, variance_shares
from fmi.evidence.intervals import Estimate

FEW = {"resamples": 100}
NAMES = ("filter", "picture", "interaction", "start")
SIZES = (16, 4, 2)


def panels(seed, spreads=(1, 1, 1, 1), sizes=SIZES, length=8):
    """Features (N, K, S, D) with normal effects of filter, picture, both, and start."""
    random = np.random.RandomState(seed)
    n, k, s = sizes
    shapes = ((n, 1, 1), (1, k, 1), (n, k, 1), (n, k, s))
    return sum(
        spread * random.normal(size=(*shape, length)) for spread, shape in zip(spreads, shapes)
    )


def mean_squares(x):
    """The components of variance by the textbook's table of the analysis of variance."""
    n, k, s, _ = x.shape
    whole, rows, columns, cells = x.mean((0, 1, 2)), x.mean((1, 2)), x.mean((0, 2)), x.mean(2)
    of_filters = k * s * ((rows - whole) ** 2).sum() / (n - 1)
    of_pictures = n * s * ((columns - whole) ** 2).sum() / (k - 1)
    both = s * ((cells - rows[:, None] - columns[None] + whole) ** 2).sum() / ((n - 1) * (k - 1))
    rest = ((x - cells[:, :, None]) ** 2).sum() / (n * k * (s - 1)) if s > 1 else 0.0
    found = [(of_filters - both) / (k * s), (of_pictures - both) / (n * s), (both - rest) / s, rest]
    return np.maximum(found, 0)


def shares(found):
    return [getattr(found, name).value for name in NAMES if getattr(found, name) is not None]


@pytest.mark.parametrize("sizes", [(16, 4, 2), (3, 5, 3), (4, 3, 1)])
def test_shares_are_those_of_the_analysis_of_variance(sizes):
    for seed in range(5):
        x = 100 + panels(seed, sizes=sizes)
        expected = mean_squares(x)
        got = shares(variance_shares(x, **FEW))
        assert got == pytest.approx((expected / expected.sum())[: len(got)], abs=1e-9)
    assert (variance_shares(x, **FEW).start is None) == (sizes[2] == 1)


@pytest.mark.parametrize("index", range(4))
def test_variance_of_one_kind_is_found(index):
    spreads = [float(i == index) for i in range(4)]
    found = shares(variance_shares(panels(1, spreads, length=200), **FEW))
    assert found[index] == pytest.approx(1, abs=0.02)


def test_identical_textures_from_all_pictures():
    """A filter whose panels are equal whatever the picture: all variance is the filter's."""
    found = variance_shares(np.tile(panels(0)[:, :1, :1], (1, 4, 2, 1)), **FEW)
    assert (found.filter.value, found.filter.low, found.filter.high) == pytest.approx((1, 1, 1))
    others = (found.picture, found.interaction, found.start)
    assert max(one.high for one in others) < 1e-9


def test_two_filters_that_are_copies_do_not_add_a_filter():
    x = panels(3)
    x[1] = x[0]
    assert shares(variance_shares(x, **FEW))[0] < shares(variance_shares(panels(3), **FEW))[0]


@pytest.mark.parametrize(
    ("index", "length", "seeds"), [(0, 1, 100), (1, 1, 100), (0, 50, 100), (2, 8, 100)]
)
def test_shares_without_an_effect(index, length, seeds):
    spreads = [1.0, 1.0, 1.0, 1.0]
    spreads[index] = 0.0
    found = [
        getattr(variance_shares(panels(i, spreads, (8, 4, 2), length), 60), NAMES[index])
        for i in range(seeds)
    ]
    assert sum(one.low == 0 for one in found) >= 90
    assert np.mean([one.value for one in found]) < 0.15


def test_the_interval_covers_the_share():
    found = [variance_shares(panels(i, length=20), 100).filter for i in range(100)]
    assert sum(one.low <= 0.25 <= one.high for one in found) >= 90


@given(st.permutations(range(4)), st.permutations(range(3)), st.floats(0.01, 1e6))
@settings(max_examples=20, deadline=None)
def test_shares_do_not_depend_on_order_or_unit(filters, pictures, unit):
    x = panels(5, sizes=(4, 3, 2))
    moved = unit * x[filters][:, pictures] + 3
    assert shares(variance_shares(moved, 10)) == pytest.approx(
        shares(variance_shares(x, 10)), abs=1e-6
    )


# --- Cliff's delta


@given(
    arrays(np.float64, (4, 3), elements=st.integers(-3, 3)),
    arrays(np.float64, (5, 3), elements=st.integers(-3, 3)),
)
@settings(max_examples=30, deadline=None)
def test_delta_against_loops(first, second):
    signs = [np.sign(a - b) for k in range(3) for a in first[:, k] for b in second[:, k]]
    found = cliffs_delta(first, second, resamples=10)
    assert found.value == pytest.approx(np.mean(signs), abs=1e-12)
    assert -1 <= found.low <= found.value <= found.high <= 1
    other = cliffs_delta(np.exp(first), np.exp(second), resamples=10)
    assert (other.value, other.low, other.high) == (found.value, found.low, found.high)
    assert cliffs_delta(second, first, resamples=10).value == pytest.approx(-found.value)


def test_delta_of_pairs():
    first = np.random.RandomState(0).normal(size=(6, 4))
    assert cliffs_delta(first + 0.01, first, paired=True, **FEW).low == 1
    second = first.copy()
    second[0] += 1
    assert cliffs_delta(first, second, paired=True, **FEW).value == pytest.approx(-1 / 6)
    second[1:, 0] = np.nan
    assert cliffs_delta(first, second, paired=True, **FEW).value == pytest.approx(-4 / 19)


def test_delta_is_the_u_of_mann_and_whitney():
    random = np.random.RandomState(1)
    first, second = random.normal(size=(9, 2)), random.normal(1, 1, size=(7, 2))
    area = [stats.mannwhitneyu(first[:, k], second[:, k])[0] / 63 for k in (0, 1)]
    assert cliffs_delta(first, second, **FEW).value == pytest.approx(2 * np.mean(area) - 1)
    first[3, 1] = np.nan
    area[1] = stats.mannwhitneyu(np.delete(first[:, 1], 3), second[:, 1])[0] / 56
    expected = 2 * (63 * area[0] + 56 * area[1]) / 119 - 1
    assert cliffs_delta(first, second, **FEW).value == pytest.approx(expected)


@pytest.mark.parametrize("paired", [False, True])
def test_delta_without_an_effect(paired):
    covered = 0
    for seed in range(100):
        random = np.random.RandomState(seed)
        pictures = random.normal(size=(1, 4))
        first, second = (
            random.normal(size=(16, 1)) + pictures + random.normal(size=(16, 4)) for _ in range(2)
        )
        found = cliffs_delta(first, second, paired, **FEW)
        covered += found.low <= 0 <= found.high
    assert covered >= 90


# --- Trend


def test_trend_is_somers_d():
    random = np.random.RandomState(2)
    rows = random.randint(0, 6, size=(3, 7)) + np.arange(3.0)[:, None]
    rows[0, 5:] = rows[2, 4:] = np.nan  # rows of 5, 7 and 4 filters
    index = np.repeat(range(3), [5, 7, 4])
    expected = stats.somersd(index, rows[np.isfinite(rows)]).statistic
    assert trend(rows, **FEW).value == pytest.approx(expected)


def test_trend_of_single_values_is_kendalls_tau():
    values = np.random.RandomState(0).permutation(5).astype(float)
    rows = [np.full((2, 2), value) for value in values]  # each filter and picture the same
    assert trend(rows, **FEW).value == pytest.approx(stats.kendalltau(range(5), values)[0])


def test_trend_within_pictures():
    """What pictures add in all rows does not hide a trend."""
    random = np.random.RandomState(0)
    pictures = 100 * random.normal(size=(1, 4))
    rows = [pictures + row + 0.1 * random.uniform(size=(6, 4)) for row in range(5)]
    assert trend(rows, **FEW).low == 1
    assert trend(rows[::-1], **FEW).high == -1
    rows[2][0, 1] = np.nan
    assert trend(rows, **FEW).value == 1
    with_all = [np.cbrt(row) for row in rows]
    assert trend(with_all, **FEW) == trend(rows, **FEW)


def test_no_trend():
    covered = 0
    for seed in range(100):
        random = np.random.RandomState(seed)
        pictures = random.normal(size=(1, 4))
        rows = [
            random.normal(size=(16, 1)) + pictures + random.normal(size=(16, 4)) for _ in range(5)
        ]
        found = trend(rows, resamples=60)
        covered += found.low <= 0 <= found.high
    assert covered >= 90


# --- Rank correlation of distances


def distances(seed, n=22):
    points = np.random.RandomState(seed).normal(size=(n, 3))
    return cdist(points, points)


@pytest.mark.parametrize("decimals", [8, 0])  # without and with equal distances
def test_spearman_is_scipys(decimals):
    first, second = (np.round(distances(seed), decimals) for seed in (0, 1))
    rows, columns = np.triu_indices(22, 1)
    expected = stats.spearmanr(first[rows, columns], second[rows, columns])[0]
    found = spearman(first, second, **FEW)
    assert found.value == pytest.approx(expected)
    order = np.random.RandomState(0).permutation(22)
    moved = spearman(first[np.ix_(order, order)] ** 3, second[np.ix_(order, order)], **FEW)
    assert moved.value == pytest.approx(expected)


def statistic_of(monkeypatch, call, *arguments):
    """The function of weights that a call hands to the bootstrap."""
    kept = []

    def keep(function, *_, **__):
        kept.append(function)
        return Estimate(0.0, 0.0, 0.0)

    monkeypatch.setattr(effects, "bootstrap", keep)
    call(*arguments)
    return kept[0]


def test_copies_of_a_picture_make_no_pair(monkeypatch):
    first, second = np.round(distances(0, 6), 1), distances(1, 6)
    statistic = statistic_of(monkeypatch, spearman, first, second)
    draw = np.array([2, 0, 3, 1, 0, 1])
    units = np.repeat(range(6), draw)
    pairs = [(a, b) for i, a in enumerate(units) for b in units[:i] if a != b]
    expected = stats.spearmanr(*([m[pair] for pair in pairs] for m in (first, second)))[0]
    assert statistic([draw.astype(float)]) == pytest.approx(expected)


def test_copies_of_a_filter_are_no_two_filters(monkeypatch):
    """Against mean products over pairs of drawn panels, copies left out."""
    x = panels(7, sizes=(4, 4, 2))
    x = x - x.mean((0, 1, 2))
    statistic = statistic_of(monkeypatch, variance_shares, x)
    draws = np.array([2, 1, 0, 1]), np.array([1, 0, 2, 1])
    filters, pictures = (list(np.repeat(range(4), draw)) for draw in draws)
    cells = [(a, i, b, k) for a, i in enumerate(filters) for b, k in enumerate(pictures)]
    kinds = {}
    for a, i, b, k in cells:
        for c, j, d, m in cells:
            if (a != c and i == j) or (b != d and k == m):
                continue
            for s in range(2):
                for t in range(2):
                    kind = (i == j, k == m, (i, k) == (j, m) and s == t)
                    kinds.setdefault(kind, []).append(x[i, k, s] @ x[j, m, t])
    none, of_filter, of_picture, cell, own = (
        np.mean(kinds[kind])
        for kind in (
            (False, False, False),
            (True, False, False),
            (False, True, False),
            (True, True, False),
            (True, True, True),
        )
    )
    parts = [of_filter - none, of_picture - none, cell - of_filter - of_picture + none, own - cell]
    parts = np.maximum(parts, 0)
    expected = parts[0] / parts.sum()
    assert statistic([draw.astype(float) for draw in draws]) == pytest.approx(expected)


def test_the_same_order_and_the_reverse():
    first = distances(0)
    assert spearman(first, first**2, **FEW).low == pytest.approx(1)
    assert spearman(first, -first, **FEW).high == pytest.approx(-1)


def test_distances_that_have_nothing_in_common():
    found = [spearman(distances(2 * i), distances(2 * i + 1), **FEW) for i in range(100)]
    assert sum(one.low <= 0 <= one.high for one in found) >= 90


HOLE = np.ones((4, 3, 2, 1))
HOLE[1, 2, 0, 0] = np.nan
SKEW = distances(0)
SKEW[3, 4] += 1


@pytest.mark.parametrize(
    ("call", "facts"),
    [
        (lambda: variance_shares(np.ones((4, 4, 2))), ["(4, 4, 2)", "4 dimensions"]),
        (lambda: variance_shares(panels(0, sizes=(1, 4, 2))), ["(1, 4, 2, 8)", "3 filters"]),
        (lambda: variance_shares(panels(0, sizes=(4, 1, 2))), ["(4, 1, 2, 8)", "3 pictures"]),
        (lambda: variance_shares(HOLE), ["(1, 2, 0, 0)"]),
        (lambda: variance_shares(np.full((4, 3, 2, 1), 7.0)), ["24", "same"]),
        (lambda: cliffs_delta(np.ones((4, 3)), np.ones((4, 2))), ["(4, 3)", "(4, 2)", "pictures"]),
        (lambda: cliffs_delta(np.ones((4, 3)), np.ones((5, 3)), True), ["(5, 3)", "filters"]),
        (lambda: cliffs_delta(np.ones((1, 3)), np.ones((5, 3))), ["2 units", "1"]),
        (lambda: cliffs_delta(np.ones(3), np.ones((5, 3))), ["first", "(3,)"]),
        (lambda: trend([np.ones((3, 3))]), ["2 rows", "1"]),
        (lambda: trend([np.ones((3, 3)), np.ones((3, 4))]), ["(3, 3)", "(3, 4)"]),
        (lambda: trend(np.ones((2, 3, 1))), ["2 units", "1"]),
        (lambda: trend(np.ones((2, 1, 3))), ["2 units", "1"]),
        (lambda: trend([np.ones((3, 3)), np.full((3, 3), np.nan)]), ["row 1", "no number"]),
        (lambda: spearman(SKEW, SKEW), ["first", "symmetric"]),
        (lambda: spearman(np.ones((4, 5)), np.ones((4, 5))), ["(4, 5)", "square"]),
        (lambda: spearman(distances(0, 5), distances(0, 6)), ["(5, 5)", "(6, 6)"]),
        (lambda: spearman(distances(0, 3), distances(1, 3)), ["4 pictures", "3"]),
        (lambda: spearman(distances(0), np.ones((22, 22))), ["second", "constant"]),
    ],
)
def test_bad_input(call, facts):
    with pytest.raises(InputError) as error:
        call()
    assert all(fact in str(error.value) for fact in facts), str(error.value)
