"""Intervals of crossed data, against plain loops, closed forms and simulated coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from fmi.errors import InputError
from fmi.evidence import intervals
from fmi.evidence.intervals import Estimate, bootstrap, difference, mean, share

FEW = {"resamples": 200}
NUMBERS = st.floats(-100, 100, width=32)


def same(first, second):
    ends = [(one.value, one.low, one.high) for one in (first, second)]
    return ends[0] == pytest.approx(ends[1])


def crossed(seed, filters=16, pictures=4, spread=(1.0, 1.0, 1.0), starts=1):
    """Values [filter, picture, start] without a mean: effects of filters, of pictures, noise."""
    random = np.random.RandomState(seed)
    filter_spread, picture_spread, noise = spread
    effects = filter_spread * random.normal(size=(filters, 1, 1))
    effects = effects + picture_spread * random.normal(size=(1, pictures, 1))
    return effects + noise * random.normal(size=(filters, pictures, starts))


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.43, 0.38, 0.49), ".43 [.38, .49]"),
        ((0.0034, 0.0028, 0.0038), ".0034 [.0028, .0038]"),
        ((-0.43, -0.61, 0.1), "-.43 [-.61, .10]"),
        ((4.31, 3.8, 4.9), "4.3 [3.8, 4.9]"),
        ((50, 3, 130), "50 [3, 130]"),
        ((1, 1, 1), "1 [1, 1]"),
        ((0, -0.0003, 0.1), ".00 [.00, .10]"),
        ((1234567, 1.2e6, 1.3e6), "1.23e+06 [1.2e+06, 1.3e+06]"),
        ((1e-6, 5e-7, 2e-6), "1e-06 [5e-07, 2e-06]"),
        ((math.nan,) * 3, "-"),
    ],
)
def test_text(numbers, text):
    assert str(Estimate(*numbers)) == text


def test_the_weights_are_counts_of_independent_draws():
    seen = []

    def statistic(weights):
        seen.append([weight.copy() for weight in weights])
        return float(weights[0] @ np.arange(5))

    bootstrap(statistic, (5, 5), resamples=400, seed=1)
    first, draws = seen[0], seen[1:401]
    assert all((weight == 1).all() for weight in first)
    assert all(weight.sum() == n for draw in draws for weight, n in zip(draw, (5, 5)))
    counts = [np.array([draw[axis] for draw in draws]) for axis in (0, 1)]
    for count in counts:
        assert np.abs(count.mean(axis=0) - 1).max() < 0.2
    assert np.abs(np.corrcoef(counts[0].T, counts[1].T)[:5, 5:]).max() < 0.2


def test_against_loops():
    """The interval of a mean over one axis: percentiles, brought to the width of Student's."""
    values = np.random.RandomState(3).normal(size=7)
    random = np.random.RandomState(5)
    draws = random.multinomial(7, np.full(7, 1 / 7), size=300)
    means = [sum(c * v for c, v in zip(draw, values)) / 7 for draw in draws]
    low, high = np.quantile(means, [0.025, 0.975])
    error = values.std(ddof=1) / np.sqrt(7)
    wider = 2.446911851 * error / (1.959963985 * np.std(means))  # t with 6 degrees of freedom, z
    found = mean(values, (0,), resamples=300, seed=5)
    centre = values.mean()
    assert found.value == pytest.approx(centre)
    assert found.low == pytest.approx(centre - wider * (centre - low))
    assert found.high == pytest.approx(centre + wider * (high - centre))


@pytest.mark.parametrize(
    ("seed", "spread", "least"), [(4, (1, 0.6, 1), False), (2, (0, 0, 1), True)]
)
def test_the_width_is_that_of_the_analysis_of_variance(seed, spread, least):
    """The standard error of a mean of crossed data from its mean squares, and its t."""
    values = crossed(seed, 9, 5, spread)[:, :, 0]
    n, k = values.shape
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    rest = values - rows[:, None] - columns + values.mean()
    parts = np.array(
        [rows.var(ddof=1) / n, columns.var(ddof=1) / k, (rest**2).sum() / (n - 1) / (k - 1) / n / k]
    )
    total = max(parts[0] + parts[1] - parts[2], parts[:2].min())
    freedom = total**2 / (parts**2 / [n - 1, k - 1, (n - 1) * (k - 1)]).sum()
    assert (freedom < k - 1) == least  # then it is that of the pictures
    student = stats.t.ppf(0.975, max(freedom, k - 1))
    exact = intervals._jackknife(
        lambda w: w[0] @ values @ w[1] / w[0].sum() / w[1].sum(), (n, k), 0.975, values.mean()
    )
    assert exact == pytest.approx((np.sqrt(total), student))
    found = mean(values, resamples=20000)
    assert found.high - found.low == pytest.approx(2 * student * np.sqrt(total), rel=0.02)
    assert parts[2] > 0.3 * total  # else its absence would not be noticed


def test_bounds_and_confidence():
    values = np.array([0.0, 1, 1, 1, 1, 1])
    assert mean(values, (0,)).high > 1
    assert mean(values, (0,), bounds=(0, 1)).high == 1
    assert mean(1 - values, (0,)).low < 0
    assert mean(1 - values, (0,), bounds=(0, 1)).low == 0
    wide, narrow = (
        bootstrap(lambda weights: float(weights[0] @ values), (6,), confidence=c)
        for c in (0.99, 0.5)
    )
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


@pytest.mark.parametrize("values", [1 - np.eye(4), np.add.outer(range(5), range(5)) % 5 / 10])
def test_what_differs_in_each_row_and_column_alike_is_not_certain(values):
    """A latin square, which leaves the jackknife nothing: the percentiles of the draws remain."""
    found = mean(values)
    random, n = np.random.RandomState(0), len(values)
    rows, columns = (random.multinomial(n, [1 / n] * n, size=1000) / n for _ in range(2))
    draws = np.einsum("di,ik,dk->d", rows, values, columns)
    wanted = values.mean(), *np.quantile(draws, [0.025, 0.975])
    assert (found.value, found.low, found.high) == pytest.approx(wanted)
    assert found.high - found.low > 0.1


def test_a_share_of_all_or_none_is_not_certain():
    """The interval of Clopper and Pearson, from the beta distribution."""
    none, every = (share(mean(np.full(16, x), (0,), **FEW), 16) for x in (0.0, 1.0))
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(stats.beta.ppf(0.975, 1, 16))
    assert (every.low, every.high) == (pytest.approx(stats.beta.ppf(0.025, 16, 1)), 1)
    some = mean(np.arange(16) % 2, (0,), **FEW)
    assert share(some, 16) == some


def test_same_seed_same_interval():
    values = crossed(0)
    assert mean(values, **FEW) == mean(values, **FEW)
    assert mean(values, **FEW) != mean(values, seed=1, **FEW)


@given(arrays(np.float64, (4, 3, 2), elements=NUMBERS), st.permutations(range(4)))
@settings(max_examples=30, deadline=None)
def test_the_mean_of_all_and_its_order(values, order):
    found = mean(values, resamples=20)
    assert found.value == pytest.approx(values.mean(), abs=1e-9)
    assert mean(values[order], resamples=20).value == pytest.approx(found.value, abs=1e-9)
    assert found.low <= found.value <= found.high
    moved = mean(2 * values + 5, resamples=20)
    for one, other in zip((moved.low, moved.high), (found.low, found.high)):
        assert one == pytest.approx(2 * other + 5, abs=1e-6)


def test_missing_values_are_left_out():
    values = crossed(2, 6, 4, starts=3)
    values[1, 2, 0] = values[3, 1] = np.nan
    cells = [values[i, k] for i in range(6) for k in range(4) if (i, k) != (3, 1)]
    found = mean(values, **FEW)
    assert found.value == pytest.approx(np.mean([np.nanmean(cell) for cell in cells]))
    whole = np.delete(values, 4, axis=0)
    values[4] = np.nan
    assert mean(values, **FEW) == mean(whole, **FEW)


def test_other_axes_are_averaged_and_axes_may_come_in_any_order():
    values = crossed(4, 5, 6, starts=2)
    assert same(mean(values, **FEW), mean(values.mean(axis=2), **FEW))
    assert same(mean(values.transpose(2, 1, 0), (2, 1), **FEW), mean(values, **FEW))
    assert same(mean(values, (1,), **FEW), mean(values.mean(axis=(0, 2)), (0,), **FEW))


def test_paired_differences_forget_what_is_common():
    values = crossed(1)
    paired, free = (difference(values + 1, values, paired=p, **FEW) for p in (True, False))
    assert (paired.value, paired.low, paired.high) == pytest.approx((1, 1, 1))
    assert free.value == pytest.approx(1)
    assert free.low < 0 < 2 < free.high  # the spread of filters and pictures, twice


def test_differences_paired_by_pictures_alone():
    """Large effects of pictures cancel, and the numbers of filters may differ."""
    first, second = crossed(1, 12, spread=(0.1, 0, 0.1)), crossed(2, 9, spread=(0.1, 0, 0.1))
    pictures = 10 * np.arange(4.0)[None, :, None]
    there = difference(first + pictures, second + pictures, paired=(1,), **FEW)
    assert there.value == pytest.approx(first.mean() - second.mean())
    assert there.high - there.low < 0.5
    free = difference(first + pictures, second + pictures, paired=False, **FEW)
    assert free.high - free.low > 10


def test_units_missing_in_one_of_two():
    first, second = crossed(1, 6), crossed(2, 5)
    first[2], second[:, 1] = np.nan, np.nan
    found = difference(first, second, paired=(1,), **FEW)
    kept = difference(
        np.delete(np.delete(first, 2, 0), 1, 1), np.delete(second, 1, 1), paired=(1,), **FEW
    )
    assert found == kept
    second = crossed(2, 6)
    second[0, 0] = np.nan
    assert difference(first, second, **FEW).value == pytest.approx(np.nanmean(first - second))


@pytest.mark.parametrize("spread", [(1, 1, 1), (1, 0, 1), (0, 1, 1), (0, 0, 1)])
def test_the_interval_covers_the_truth(spread):
    inside = [mean(crossed(seed, spread=spread), **FEW) for seed in range(100)]
    assert sum(one.low <= 0 <= one.high for one in inside) >= 90


@pytest.mark.parametrize("paired", [True, False, (1,)])
def test_the_interval_covers_no_difference(paired):
    covered = 0
    for seed in range(100):
        first, second = crossed(2 * seed, spread=(1, 0, 1)), crossed(2 * seed + 1, spread=(1, 0, 1))
        pictures = np.random.RandomState(seed).normal(size=(1, 4, 1))
        both = 0 if paired is False else pictures
        one = difference(first + both, second + both, paired=paired, **FEW)
        covered += one.low <= 0 <= one.high
    assert covered >= 90


@pytest.mark.parametrize(
    ("call", "facts"),
    [
        (lambda: mean(np.ones((1, 4))), ["2", "(1, 4)"]),
        (lambda: mean(np.ones((4, 1))), ["2", "(4, 1)"]),
        (lambda: mean([[1, np.nan], [np.nan, np.nan]]), ["2", "(1, 1)"]),
        (lambda: mean(np.full((4, 4), np.nan)), ["(4, 4)", "no number"]),
        (lambda: mean(np.zeros((0, 4))), ["(0, 4)"]),
        (lambda: mean([[1, 2], [np.inf, 3]]), ["infinite", "(1, 0"]),
        (lambda: mean([["a", "b"]]), ["numbers"]),
        (lambda: mean(np.ones((3, 3)), (0, 2)), ["(0, 2)", "(3, 3)"]),
        (lambda: mean(np.ones((3, 3)), (0, 0)), ["(0, 0)"]),
        (lambda: mean(np.ones((3, 3)), resamples=1), ["1", "draws"]),
        (lambda: difference(np.ones((3, 3)), np.ones((4, 3))), ["(3, 3)", "(4, 3)"]),
        (lambda: difference(np.ones((3, 3)), np.ones((3, 3)), paired=(2,)), ["(2,)"]),
        (lambda: bootstrap(lambda weights: math.nan, (3,)), ["nan"]),
        (lambda: bootstrap(lambda weights: 1.0, (3,), confidence=95), ["95"]),
        (lambda: bootstrap(lambda w: 1.0 if w[0].min() else math.nan, (3,)), ["not defined", "3"]),
    ],
)
def test_bad_input(call, facts):
    with pytest.raises(InputError) as error:
        call()
    assert all(fact in str(error.value) for fact in facts), str(error.value)


def test_a_statistic_that_needs_all_but_one_unit():
    """Draws without a value are left out; the interval is of those with one."""

    def pairs(weights):
        (w,) = weights
        values = np.arange(float(len(w)))
        total = w.sum() ** 2 - (w**2).sum()
        return ((w @ values) ** 2 - (w**2) @ values**2) / total if total else math.nan

    found = bootstrap(pairs, (3,))
    assert found.value == pytest.approx(2 / 3)
    assert found.low < found.value < found.high
    with pytest.raises(InputError, match="2 units|1000 draws"):
        bootstrap(pairs, (2,))
