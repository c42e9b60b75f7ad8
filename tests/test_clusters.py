"""The gap statistic, on data whose number of clusters is known, and against its formula."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmi.errors import InputError
from fmi.evidence.clusters import gap

FEW = {"largest": 4, "references": 5}


@pytest.fixture(autouse=True)
def scikit_learn(request):
    if "missing" not in request.node.name:
        pytest.importorskip("sklearn.cluster")


def groups(number, seed=0, each=10, length=6, apart=12.0):
    random = np.random.RandomState(seed)
    centres = apart * np.eye(max(number, length))[:number, :length]
    return np.repeat(centres, each, axis=0) + random.normal(size=(number * each, length))


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_groups_that_are_far_apart(number):
    found = gap(groups(number), references=10)
    assert found.number == number
    assert found.values.shape == found.errors.shape == (5,)


def test_more_groups_than_are_thought_of():
    assert gap(groups(4, length=4), largest=3, references=5).number == 3


def test_data_without_clusters():
    random = np.random.RandomState(0)
    normal = [gap(random.normal(size=(30, 10)), largest=3, references=8).number for _ in range(20)]
    uniform = [gap(random.uniform(size=(30, 3)), largest=3, references=8).number for _ in range(20)]
    assert normal.count(1) >= 18
    assert uniform.count(1) >= 14


def test_against_the_formula():
    """One cluster needs no k-means; the box is that of the principal components."""
    points = groups(2, length=3) @ np.diag([1.0, 3.0, 0.2])
    centred = points - points.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    turned = centred @ vectors
    random = np.random.RandomState(1)
    logs = []
    for _ in range(400):
        sample = random.uniform(turned.min(axis=0), turned.max(axis=0), turned.shape)
        logs.append(np.log(((sample - sample.mean(axis=0)) ** 2).sum()))
    found = gap(points, largest=1, references=400)
    close = 4 * np.std(logs) * np.sqrt(2 / 400)
    expected = np.mean(logs) - np.log((centred**2).sum())
    assert found.values[0] == pytest.approx(expected, abs=close)
    assert found.errors[0] == pytest.approx(np.std(logs) * np.sqrt(1 + 1 / 400), rel=0.15)


@given(st.permutations(range(20)), st.floats(1e-3, 1e6), st.integers(0, 5))
@settings(max_examples=5, deadline=None)
def test_order_unit_and_rotation(order, unit, seed):
    points = groups(2)
    rotation, _ = np.linalg.qr(np.random.RandomState(seed).normal(size=(6, 6)))
    found, moved = gap(points, **FEW), gap(unit * (points[order] @ rotation) + 7, **FEW)
    assert found.number == moved.number == 2
    assert moved.values == pytest.approx(found.values, abs=0.2)


def test_same_seed_same_gap():
    first, second = (gap(groups(2), **FEW) for _ in range(2))
    assert (first.values == second.values).all()
    assert (gap(groups(2), seed=1, **FEW).values != first.values).any()


def test_more_numbers_than_pictures():
    assert gap(groups(2, length=500, apart=60.0), **FEW).number == 2


@pytest.mark.parametrize(
    ("call", "facts"),
    [
        (lambda: gap(np.ones((10, 3))), ["1 different", "5"]),
        (lambda: gap(groups(1, each=4)), ["4 different", "5"]),
        (lambda: gap(np.ones(10)), ["(10,)", "2 dimensions"]),
        (lambda: gap(np.where(np.eye(10), np.nan, 1.0)), ["(0, 0)"]),
        (lambda: gap(groups(1), largest=0), ["largest=0"]),
        (lambda: gap(groups(1), references=1), ["references=1"]),
    ],
)
def test_bad_input(call, facts):
    with pytest.raises(InputError) as error:
        call()
    assert all(fact in str(error.value) for fact in facts), str(error.value)


def test_scikit_learn_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(InputError, match=r"pip install -e '.*\[claims\]"):
        gap(groups(1))
