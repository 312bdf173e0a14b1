import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm_models.data.splits import split
from stm_models.errors import InputError


def grid(values, per_value, per_group):
    """Groups on a grid of values, samples of a group in a row."""
    value_of_group = np.repeat(values, per_value)
    groups = np.repeat(np.arange(len(value_of_group)), per_group)
    return groups, value_of_group[groups]


def sides(result, values):
    return [np.asarray(values)[part] for part in (result.train, result.validation, result.unseen)]


@settings(max_examples=150, deadline=None)
@given(
    value_of_group=st.lists(st.one_of(st.integers(0, 12), st.floats(0, 6)), min_size=7, max_size=120),
    per_group=st.integers(1, 4),
    unseen=st.floats(0, 0.5),
    validation=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_every_sample_is_on_one_side_and_no_group_on_two(value_of_group, per_group, unseen, validation, seed):
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(value_of_group)), per_group))
    values = np.asarray(value_of_group, float)[groups]
    options = {"unseen_fraction": unseen, "validation_fraction": validation, "seed": seed}
    result = split(groups, values, **options)
    parts = (result.train, result.validation, result.unseen)
    assert sorted(np.concatenate(parts)) == list(range(len(groups)))
    train, held, unseen_groups = (set(groups[part]) for part in parts)
    assert not train & held
    assert not (train | held) & unseen_groups
    assert train
    assert held
    seen, never = set(values[np.r_[result.train, result.validation]]), set(values[result.unseen])
    assert not seen & never
    if never:
        assert min(values) < min(never) <= max(never) < max(values)
    again = split(groups, values, **options)
    assert all(np.array_equal(a, b) for a, b in zip(parts, vars(again).values(), strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_each_value_gives_its_share(seed):
    groups, values = grid(np.arange(25) * 0.25, per_value=10, per_group=3)
    result = split(groups, values, seed=seed)
    train, validation, unseen = sides(result, values)
    assert np.unique(unseen).tolist() == [1.25, 2.5, 3.5, 4.75]
    for value in np.setdiff1d(values, unseen):
        assert np.sum(validation == value) == 2 * 3
        assert np.sum(train == value) == 8 * 3


def test_seed_changes_validation_but_never_unseen():
    groups, values = grid(np.arange(10.0), per_value=10, per_group=2)
    one, two = split(groups, values, seed=1), split(groups, values, seed=2)
    assert np.array_equal(one.unseen, two.unseen)
    assert not np.array_equal(one.validation, two.validation)


def test_one_group_per_value_still_spreads_validation():
    groups, values = grid(np.arange(30.0), per_value=1, per_group=2)
    result = split(groups, values, seed=0)
    _, validation, unseen = sides(result, values)
    assert len(np.unique(unseen)) == 5
    assert len(np.unique(validation)) == 5
    assert np.diff(np.unique(validation)).max() <= 8


def test_continuous_values_hold_out_whole_bands():
    values = np.sort(np.random.default_rng(0).uniform(0, 6, 200))
    result = split(np.arange(200), values, seed=3)
    assert len(result.unseen) == 4 * 8
    breaks = np.flatnonzero(np.diff(result.unseen) > 1)
    assert len(breaks) == 3  # four runs of neighbouring values
    assert 0 not in result.unseen
    assert 199 not in result.unseen


def test_few_values_hold_nothing_out():
    groups, values = grid(np.arange(4.0), per_value=5, per_group=1)
    assert len(split(groups, values, seed=0).unseen) == 0


def test_values_that_differ_by_rounding_are_one():
    groups, values = grid(np.repeat([0.1 * 3, 0.3], 1), per_value=4, per_group=1)
    values = np.r_[values, np.arange(1.0, 5.0)]
    groups = np.r_[groups, groups.max() + 1 + np.arange(4)]
    unseen = split(groups, values, unseen_fraction=0.9, seed=0).unseen
    assert np.unique(values[unseen]).tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("unit", [1e-10, 1.602176634e-19, 1e-3, 1e14])
@pytest.mark.parametrize("values", [np.arange(13) * 0.25, np.random.default_rng(0).uniform(0, 6, 90)])
def test_the_unit_of_the_values_decides_nothing(values, unit):
    groups, values = grid(values, per_value=3, per_group=1)
    nearly = unit * values * (1 + 1e-15 * (-1) ** groups)
    for fold in (None, (1, 3)):
        one, other = (split(groups, each, seed=4, fold=fold) for each in (values, nearly))
        assert all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))
        assert len(one.unseen)


@pytest.mark.parametrize(
    ("values", "unseen", "validation"),
    [
        (np.arange(13) * 0.25, [12, 13, 14, 24, 25, 26], [2, 6, 15, 20, 29, 32, 37]),
        (np.linspace(-0.7, 0.7, 11), [9, 10, 11, 21, 22, 23], [4, 12, 18, 29, 32]),
        (np.arange(0, 60, 5), [12, 13, 14, 21, 22, 23], [2, 6, 15, 19, 28, 35]),
    ],
    ids=["eV", "fillings", "counts"],
)
def test_data_are_split_as_they_were_by_earlier_versions(values, unseen, validation):
    result = split(*grid(values, per_value=3, per_group=1), seed=4)
    assert (result.unseen.tolist(), result.validation.tolist()) == (unseen, validation)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_groups(count):
    with pytest.raises(InputError, match="simulate more states"):
        split(np.zeros(3 * count, int), np.zeros(3 * count), seed=0)


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="one group must share"):
        split(np.array([0, 0, 1]), np.array([1.0, 2.0, 3.0]), seed=0)
    with pytest.raises(ValueError, match="fractions"):
        split(np.arange(9), np.arange(9.0), validation_fraction=1.0, seed=0)


@settings(max_examples=60, deadline=None)
@given(
    value_of_group=st.lists(st.integers(0, 12), min_size=9, max_size=60),
    folds=st.integers(2, 5),
    unseen=st.floats(0, 0.4),
    seed=st.integers(0, 2**31),
)
def test_folds_split_no_group_and_are_together_everything_seen(value_of_group, folds, unseen, seed):
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(value_of_group)), 2))
    values = np.asarray(value_of_group, float)[groups]
    plain = split(groups, values, unseen_fraction=unseen, seed=seed)
    seen = np.concatenate([plain.train, plain.validation])
    if len(set(groups[seen])) < folds:
        with pytest.raises(InputError, match=f"cannot make {folds} folds"):
            split(groups, values, unseen_fraction=unseen, seed=seed, fold=(0, folds))
        return
    parts = [split(groups, values, unseen_fraction=unseen, seed=seed, fold=(n, folds)) for n in range(folds)]
    assert sorted(np.concatenate([part.validation for part in parts])) == sorted(seen)
    for part in parts:
        assert np.array_equal(part.unseen, plain.unseen)
        assert sorted([*part.train, *part.validation]) == sorted(seen)
        assert not set(groups[part.train]) & set(groups[part.validation])
    # Each value gives every fold its share of groups, up to one.
    for value in set(values[seen]):
        shares = [len(set(groups[part.validation][values[part.validation] == value])) for part in parts]
        assert max(shares) - min(shares) <= 1


def test_folds_that_do_not_exist():
    for fold in ((0, 1), (3, 3), (-1, 3)):
        with pytest.raises(ValueError, match="there is no fold"):
            split(np.arange(9), np.arange(9.0), seed=0, fold=fold)
