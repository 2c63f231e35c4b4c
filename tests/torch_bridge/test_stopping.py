"""Early stopping by neural persistence: by values, by models, and on a training of its own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from topobounds import neural_persistence, stopping_epoch
from torch_bridge import NeuralPersistenceStopper, analyze, load_dataset


@given(
    st.lists(st.integers(0, 5), max_size=12),
    st.integers(1, 4),
    st.integers(0, 4),
    st.sampled_from([0.0, 1.0]),
)
def test_it_stops_where_the_rule_says(values, patience, burn_in, min_delta):
    stopper = NeuralPersistenceStopper(patience, burn_in, min_delta=min_delta)
    told = [stopper.update(value) for value in values]
    stop = stopping_epoch(values, patience, burn_in, min_delta)
    assert told == [stop is not None and epoch >= stop for epoch in range(1, len(values) + 1)]
    assert stopper.stopped_epoch == stop
    assert stopper.values == values


def test_a_model_counts_by_the_mean_over_its_layers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 10))
    stopper = NeuralPersistenceStopper(1, 0)
    assert not stopper.update(model)
    each = [neural_persistence(model[place].weight.detach().numpy(), normalized=True) for place in (0, 2)]
    assert stopper.values == [pytest.approx(np.mean(each), rel=1e-12)]
    assert stopper.update(model)  # nothing has changed, so nothing has grown
    assert stopper.stopped_epoch == 2


def test_convolutions_count_with_an_example_alone():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 5)).double()
    without, example = NeuralPersistenceStopper(1, 0), torch.zeros(1, 1, 8, 8)
    without.update(model)
    with_example = NeuralPersistenceStopper(1, 0, example_input=example)
    with_example.update(model)
    assert without.values != with_example.values
    with pytest.raises(ValueError, match=r"^Argument 'model' must be a model with a layer whose graph is known"):
        without.update(nn.Conv2d(1, 4, 3))
    assert len(without.values) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 0), "'patience' must be a positive integer"), ((1, -1), "'burn_in' must be a non-negative integer")],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        NeuralPersistenceStopper(*arguments)
    with pytest.raises(ValueError, match="'min_delta' must be"):
        NeuralPersistenceStopper(1, 0, min_delta=-1.0)


@pytest.mark.parametrize("value", ["a", None, torch.zeros(3), float("nan"), float("inf")])
def test_what_is_neither_a_model_nor_a_finite_number(value):
    stopper = NeuralPersistenceStopper(1, 0)
    with pytest.raises(ValueError, match="must be"):
        stopper.update(value)
    assert stopper.values == []
    assert not stopper.update(torch.tensor(0.5, requires_grad=True))


def test_a_training_on_digits_ends_where_its_own_values_say():
    """The persistence of a small net grows, then levels off: training ends before its last epoch, having learned."""
    data = load_dataset("digits")
    images = torch.from_numpy(data.train_images.astype(np.float32))
    images /= images.max()
    labels = torch.from_numpy(data.train_labels.astype(np.int64))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(images.shape[1], 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=5e-3)
    stopper = NeuralPersistenceStopper(patience=3, burn_in=2)
    for _ in range(60):
        for batch in torch.randperm(len(images), generator=torch.Generator().manual_seed(1)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
        if stopper.update(model):
            break
    epochs = len(stopper.values)
    assert stopper.stopped_epoch == epochs < 60
    assert epochs == stopping_epoch(stopper.values, 3, 2)
    assert max(stopper.values[2:-3]) == max(stopper.values[2:])
    with torch.no_grad():
        assert (model(images).argmax(1) == labels).float().mean() > 0.9


def test_the_same_rule_on_the_null_and_on_the_variance_is_told_beside():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 10))
    stopper = NeuralPersistenceStopper(patience=1, burn_in=0)
    with torch.no_grad():
        for factor in (1.0, 2.0, 2.0):  # what grows is the variance alone
            model[0].weight.mul_(factor)
            stopper.update(model)
    report = analyze(model, trials=0)
    assert stopper.null_values[-1] == pytest.approx(sum(x.neural_persistence_expected for x in report.layers) / 2)
    variances = [float(layer.weight.detach().var(correction=0)) for layer in model]
    assert stopper.variances[-1] == pytest.approx(sum(variances) / 2)
    assert stopper.variance_stopped_epoch is None
    assert (stopper.stopped_epoch, stopper.null_stopped_epoch) == (2, 2)


def test_what_has_no_null_stops_nothing_beside():
    stopper = NeuralPersistenceStopper(patience=1, burn_in=0)
    assert [stopper.update(value) for value in (0.5, 0.4)] == [False, True]
    assert (stopper.null_stopped_epoch, stopper.variance_stopped_epoch) == (None, None)
    pruned = nn.Linear(20, 30)
    with torch.no_grad():
        pruned.weight[:, ::2] = 0
    plain = NeuralPersistenceStopper(patience=1, burn_in=0, beside=False)
    for each in (stopper, plain):
        each.update(pruned)
    assert plain.variances == plain.null_values == [None]
    assert stopper.variances[-1] is not None
