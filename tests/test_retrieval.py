"""Retrieval, against scikit-learn, plain loops, and panels with a known answer."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from fmi.errors import InputError
from fmi.evidence import retrieval
from fmi.evidence.retrieval import (
    addresses,
    average_precision,
    chance_average_precision,
    found_again,
    mean_average_precision,
    ranks,
    roc_auc,
    two_alternatives,
)

FEW = {"resamples": 60}
SIZES = (8, 4, 2)
PANELS = addresses(*SIZES)


def features(seed, of_filters=0.0, sizes=SIZES, length=6):
    random = np.random.RandomState(seed)
    n, k, s = sizes
    x = of_filters * random.normal(size=(n, 1, 1, length)) + random.normal(size=(1, k, 1, length))
    x = x + random.normal(size=(n, k, 1, length)) + 0.3 * random.normal(size=(n, k, s, length))
    return x.reshape(n * k * s, length)


def distances(seed, of_filters=0.0, **options):
    x = features(seed, of_filters, **options)
    return cdist(x, x)


def pairs(panels):
    """Pairs of panels from different pictures, and whether they are of the same filter."""
    for p, q in itertools.combinations(range(len(panels)), 2):
        if panels[p][1] != panels[q][1]:
            yield p, q, panels[p][0] == panels[q][0]


def test_addresses_are_in_the_order_of_an_array():
    table = addresses(3, 4, 2)
    numbers = np.arange(24).reshape(3, 4, 2)
    assert [numbers[tuple(address)] for address in table] == list(range(24))


# --- ROC


@pytest.mark.parametrize("decimals", [8, 0])
def test_area_is_scikit_learns(decimals):
    metrics = pytest.importorskip("sklearn.metrics")
    matrix = np.round(distances(0, 0.8), decimals)
    found = roc_auc(matrix, PANELS, **FEW)
    far, same = zip(*[(matrix[p, q], same) for p, q, same in pairs(PANELS)])
    assert found.value == pytest.approx(metrics.roc_auc_score(same, -np.array(far)))
    assert found.low < found.value < found.high


def test_copies_of_filters_and_pictures_make_no_pair(monkeypatch):
    kept = []
    monkeypatch.setattr(retrieval, "bootstrap", lambda f, *_, **__: kept.append(f))
    matrix, table = np.round(distances(1, 0.5, sizes=(4, 3, 1)), 1), addresses(4, 3, 1)
    roc_auc(matrix, table)
    draws = np.array([2, 1, 0, 1]), np.array([1, 0, 2])
    drawn = [  # a panel for each copy of its filter and picture
        (panel, copy, other)
        for panel, (i, k, _) in enumerate(table)
        for copy in range(draws[0][i])
        for other in range(draws[1][k])
    ]
    alike, unlike = [], []
    for (p, copy, _), (q, another, _) in itertools.combinations(drawn, 2):
        if table[p][1] != table[q][1]:
            if table[p][0] != table[q][0]:
                unlike.append(matrix[p, q])
            elif copy == another:
                alike.append(matrix[p, q])
    scores = [(a < b) + (a == b) / 2 for a in alike for b in unlike]
    assert kept[0]([draw.astype(float) for draw in draws]) == pytest.approx(np.mean(scores))


def test_identical_textures_are_told_apart_and_pictures_do_not_help():
    own = np.repeat(np.random.RandomState(0).normal(size=(8, 6)), 8, axis=0)
    found = roc_auc(cdist(own, own), PANELS, **FEW)
    assert (found.value, found.low, found.high) == (1, 1, 1)
    again = found_again(cdist(own, own), PANELS, **FEW)
    assert (again.value, again.high) == (1, 1)
    assert again.low == pytest.approx(0.025 ** (1 / 8))  # Clopper and Pearson, 8 of 8 filters
    picture = np.tile(np.repeat(np.random.RandomState(1).normal(size=(4, 6)), 2, axis=0), (8, 1))
    assert roc_auc(cdist(picture, picture), PANELS, **FEW).value == 0.5
    assert found_again(cdist(picture, picture), PANELS, **FEW).value == pytest.approx(1 / 8)


@given(st.integers(0, 100), st.permutations(range(64)))
@settings(max_examples=10, deadline=None)
def test_order_of_panels_and_scale_of_distances(seed, order):
    matrix = distances(seed, 0.5)
    for function in (roc_auc, found_again):
        found = function(matrix, PANELS, resamples=10)
        moved = function(matrix[np.ix_(order, order)] ** 3, PANELS[order], resamples=10)
        names = function(matrix, 5 * PANELS + 7, resamples=10)
        for other in (moved, names):
            ends = (other.value, other.low, other.high)
            assert ends == pytest.approx((found.value, found.low, found.high), abs=1e-6)


def test_panels_without_an_effect():
    found = [
        (roc_auc(distances(i), PANELS, **FEW), found_again(distances(i), PANELS, **FEW))
        for i in range(100)
    ]
    for index, chance in enumerate((1 / 2, 1 / 8)):
        assert sum(one[index].low <= chance <= one[index].high for one in found) >= 90
        assert np.mean([one[index].value for one in found]) == pytest.approx(chance, abs=0.02)


def test_found_again_against_loops():
    matrix = np.round(distances(2, 0.8), 1)
    shares = []
    for p, (i, k, _) in enumerate(PANELS):
        for other in set(range(4)) - {k}:
            there = [q for q in range(64) if PANELS[q][1] == other]
            nearest = min(matrix[p, q] for q in there)
            near = [PANELS[q][0] == i for q in there if matrix[p, q] == nearest]
            shares.append(sum(near) / len(near))
    assert found_again(matrix, PANELS, **FEW).value == pytest.approx(np.mean(shares))


def test_panels_may_be_missing():
    matrix, kept = distances(3, 2.0), np.flatnonzero(~((PANELS[:, 0] == 2) & (PANELS[:, 1] < 3)))
    part = matrix[np.ix_(kept, kept)]
    far, same = zip(*[(part[p, q], same) for p, q, same in pairs(PANELS[kept])])
    far, same = np.array(far), np.array(same)
    expected = np.mean(far[same][:, None] < far[~same])
    assert roc_auc(part, PANELS[kept], **FEW).value == pytest.approx(expected)
    rest = PANELS[kept]
    shares = []
    for p, q in itertools.product(range(len(rest)), range(4)):
        there = [r for r in range(len(rest)) if rest[r][1] == q]
        if rest[p][1] != q and any(rest[r][0] == rest[p][0] for r in there):
            nearest = min(there, key=lambda r: part[p, r])
            shares.append(rest[nearest][0] == rest[p][0])
    assert found_again(part, rest, **FEW).value == pytest.approx(np.mean(shares))


# --- Average precision


@pytest.mark.parametrize("decimals", [8, 0])
def test_precision_is_scikit_learns(decimals):
    metrics = pytest.importorskip("sklearn.metrics")
    matrix = np.round(distances(4, 1.0), decimals)
    labels = np.array([f"class {i}" for i in PANELS[:, 0]])
    labels[5] = "alone"
    found = average_precision(matrix, labels)
    assert math.isnan(found[5])
    for query in set(range(64)) - {5}:
        rest = np.arange(64) != query
        expected = metrics.average_precision_score(
            labels[rest] == labels[query], -matrix[query, rest]
        )
        assert found[query] == pytest.approx(expected)
    whole = mean_average_precision(matrix, labels, **FEW)
    assert whole.value == pytest.approx(np.nanmean(found))
    assert whole.low < whole.value < whole.high
    photographs = mean_average_precision(matrix, labels, np.arange(64), **FEW)
    assert photographs.value == pytest.approx(whole.value)
    assert photographs.high - photographs.low < whole.high - whole.low


@pytest.mark.parametrize("labels", ["aab", "aabb", "aaabb", "aaaab", "aabbcd"])
def test_chance_is_the_mean_over_all_orders(labels):
    """Every order of the candidates of every query, counted."""
    total, queries = 0.0, 0
    for query, own in enumerate(labels):
        rest = labels[:query] + labels[query + 1 :]
        if own in rest:
            queries += 1
            values = []
            for order in itertools.permutations(rest):
                hits = [label == own for label in order]
                places = [k for k, hit in enumerate(hits) if hit]
                values.append(np.mean([sum(hits[: k + 1]) / (k + 1) for k in places]))
            total += np.mean(values)
    assert chance_average_precision(list(labels)) == pytest.approx(total / queries)


def test_retrieval_without_classes():
    labels = np.repeat(range(12), 5)
    chance, covered, values = chance_average_precision(labels), 0, []
    for seed in range(100):
        points = np.random.RandomState(seed).normal(size=(60, 5))
        found = mean_average_precision(cdist(points, points), labels, **FEW)
        covered += found.low <= chance <= found.high
        values.append(found.value)
    assert covered >= 90
    assert np.mean(values) == pytest.approx(chance, abs=0.005)


def test_perfect_retrieval():
    labels = np.repeat(range(4), 3)
    found = mean_average_precision(labels[:, None] != labels, labels, **FEW)
    assert (found.value, found.low, found.high) == (1, 1, 1)


# --- Two alternatives


def test_two_alternatives():
    right = np.array([[1.0, 1, 1, np.nan], [1, 5, 1, 1], [1, 1, 1, 1]])
    wrong = np.array([[2.0, 2, 2, 2], [2, 2, 1, np.nan], [0, 0, 0, 0]])
    found = two_alternatives(right, wrong, **FEW)
    assert found.value == pytest.approx((1 + 0.5 + 0) / 3)
    assert two_alternatives(wrong, right, **FEW).value == pytest.approx(0.5)
    sure = two_alternatives(right * 0, right * 0 + 1e-9, **FEW)
    assert (sure.value, sure.high) == (1, 1)
    assert sure.low == pytest.approx(0.025 ** (1 / 3))


@given(arrays(np.float64, (2, 4, 5), elements=st.integers(0, 3)))
@settings(max_examples=30, deadline=None)
def test_alternatives_add_up(pair):
    first, second = pair
    there, back = (two_alternatives(a, b, 10) for a, b in ((first, second), (second, first)))
    assert there.value + back.value == pytest.approx(1)
    other = two_alternatives(np.exp(first), np.exp(second), 10)
    assert (other.value, other.low, other.high) == (there.value, there.low, there.high)


def test_alternatives_that_do_not_differ():
    covered = 0
    for seed in range(100):
        random = np.random.RandomState(seed)
        found = two_alternatives(*random.normal(size=(2, 16, 12)), **FEW)
        covered += found.low <= 0.5 <= found.high
    assert covered >= 90


# --- Excitations


def test_ranks_against_loops():
    random = np.random.RandomState(0)
    own, table = np.array([7, 2, 5, 0, 9]), random.randint(0, 5, size=(5, 12)).astype(float)
    table[:, 3] = 4  # a filter that answers everything alike
    found = ranks(table, own, **FEW)
    standard = [(column - column.mean()) / (column.std() or 1) for column in table.T]
    most, first, places = [], [], []
    for panel, filter_ in enumerate(own):
        column, row = table[:, filter_], np.round([c[panel] for c in standard], 9)
        most.append((column[panel] == column.max()) / (column == column.max()).sum())
        first.append((row[filter_] == row.max()) / (row == row.max()).sum())
        places.append(((row > row[filter_]).sum() + ((row == row[filter_]).sum() - 1) / 2) / 11)
    assert found.filters.value == pytest.approx(np.mean(most))
    assert found.panels.value == pytest.approx(np.mean(first))
    assert found.rank.value == pytest.approx(np.mean(places))


def test_panels_that_excite_their_filter_alone():
    own = np.array([3, 1, 8, 6])
    table = np.random.RandomState(0).uniform(size=(4, 3, 2, 10)) * np.logspace(0, 6, 10)
    table[np.arange(4), :, :, own] += 1e8
    found = ranks(table, own, **FEW)
    assert found.filters.value == 1
    assert found.filters.low == pytest.approx(0.025 ** (1 / 4))
    assert found.panels.value > 0.9
    assert found.rank.value < 0.05
    scaled = ranks(table * np.arange(1, 11) + 5, own, **FEW)
    assert scaled.rank.value == pytest.approx(found.rank.value)
    worst = ranks(-table, own, **FEW)
    assert worst.filters.value == 0
    assert worst.filters.high == pytest.approx(1 - 0.025 ** (1 / 4))
    assert worst.rank.value > 0.95


def test_excitations_of_copied_filters():
    """Two filters that are copies: either is excited as much, so that the place is shared."""
    own = np.arange(6)
    table = np.eye(6, 6)
    table = np.concatenate([table, table], axis=1)
    found = ranks(table, own, **FEW)
    assert found.filters.value == 1
    assert found.panels.value == 0.5
    assert found.rank.value == pytest.approx(0.5 / 11)


def test_a_panel_may_be_missing():
    own, table = np.arange(5), np.random.RandomState(0).normal(size=(5, 4, 8))
    with_gap = table.copy()
    with_gap[2] = np.nan
    rest = np.delete(table, 2, axis=0)
    assert ranks(with_gap, own, **FEW) == ranks(rest, np.delete(own, 2), **FEW)


def test_excitations_without_an_effect():
    covered = np.zeros(3)
    for seed in range(100):
        random = np.random.RandomState(seed)
        table = (
            random.normal(size=(16, 4, 32)) + random.normal(size=32) + random.normal(size=(4, 1))
        )
        found = ranks(table, np.arange(16), **FEW)
        chances = ((found.filters, 1 / 16), (found.panels, 1 / 32), (found.rank, 0.5))
        covered += [one.low <= chance <= one.high for one, chance in chances]
    assert covered.min() >= 90


SMALL, SMALL_PANELS = distances(0, sizes=(3, 3, 1)), addresses(3, 3, 1)
HOLE = SMALL.copy()
HOLE[1, 4] = np.nan
TABLE = np.random.RandomState(0).normal(size=(3, 5))
PART = TABLE.copy()
PART[1, 2] = np.nan


def test_one_picture_is_none_to_draw():
    own = [0, 1, 2]
    assert ranks(TABLE[:, None], own) == ranks(TABLE[:, None, None], own) == ranks(TABLE, own)


@pytest.mark.parametrize(
    ("call", "facts"),
    [
        (lambda: roc_auc(HOLE, SMALL_PANELS), ["(1, 4)"]),
        (lambda: roc_auc(SMALL, SMALL_PANELS[:-1]), ["9", "(8, 3)"]),
        (lambda: roc_auc(SMALL[:6, :6], SMALL_PANELS[:6]), ["2 filters", "3 pictures"]),
        (lambda: found_again(SMALL[::3, ::3], SMALL_PANELS[::3]), ["3 filters", "1 pictures"]),
        (lambda: found_again(SMALL[:, :3], SMALL_PANELS), ["(9, 3)"]),
        (lambda: found_again(np.triu(SMALL), SMALL_PANELS), ["symmetric"]),
        (lambda: roc_auc(SMALL[::4, ::4], SMALL_PANELS[::4]), ["no filter", "3 panels"]),
        (lambda: found_again(SMALL[::4, ::4], SMALL_PANELS[::4]), ["no filter", "3 panels"]),
        (lambda: average_precision(HOLE, "aaabbbccc"), ["()"]),
        (lambda: average_precision(HOLE, list("aaabbbccc")), ["(1, 4)"]),
        (lambda: average_precision(SMALL, list("aabb")), ["(9, 9)", "4"]),
        (lambda: mean_average_precision(SMALL, range(9)), ["9", "two"]),
        (lambda: mean_average_precision(SMALL, list("aaaaaaaaa")), ["2 units", "1"]),
        (lambda: mean_average_precision(SMALL, list("aaaaaaaab"), list("abc")), ["3", "9"]),
        (lambda: chance_average_precision(list("abc")), ["3", "two"]),
        (lambda: two_alternatives(np.ones((3, 2)), np.ones((3, 3))), ["(3, 2)", "(3, 3)"]),
        (lambda: two_alternatives(np.ones((1, 2)), np.ones((1, 2))), ["2 units", "1"]),
        (lambda: two_alternatives(np.ones((2, 2)), np.full((2, 2), np.nan)), ["wrong"]),
        (lambda: ranks(TABLE, [0, 1]), ["3 panels"]),
        (lambda: ranks(TABLE, [0, 1, 1]), ["different"]),
        (lambda: ranks(TABLE, [0.0, 1.0, 2.0]), ["whole"]),
        (lambda: ranks(TABLE, [0, 1, 5]), ["0 to 5", "5 filters"]),
        (lambda: ranks(PART, [0, 1, 2]), ["NaN for all"]),
        (lambda: ranks(TABLE[:1], [0]), ["2 units", "1"]),
    ],
)
def test_bad_input(call, facts):
    with pytest.raises(InputError) as error:
        call()
    assert all(fact in str(error.value) for fact in facts), str(error.value)
