"""The trainer: resumable at every step, bit for bit; the data apart by what they are for."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from torch_bridge.model.tracing import trace
from torch_bridge.training.data import load_dataset
from torch_bridge.training.loop import Clock, StepRange, Training, scheduled_rate, split_data
from torch_bridge.training.models import build_model
from torch_bridge.training.plan import MODELS, DataPlan, ModelPlan, Recipe, Seeds
from torch_bridge.training.seeding import generator_seed, seeded

CPU = torch.device("cpu")
DIGITS = load_dataset("digits")
SMALL = {"mlp": {"hidden": (12,)}, "vgg11": {"width": 2}, "resnet-20": {"width": 2}, "lstm": {"width": 8}}


FEW = dataclasses.replace(DIGITS, train_images=DIGITS.train_images[:200], train_labels=DIGITS.train_labels[:200])


@pytest.fixture(scope="module")
def split():
    return split_data(FEW, DataPlan(name="digits", validation=67), 0, CPU)


def new_training(split, name, recipe, last, dropout=0.0):
    torch.manual_seed(3)
    net = build_model(ModelPlan(name=name, **SMALL.get(name, {})), 8)
    if dropout:
        net = nn.Sequential(nn.Dropout(dropout), net)
    masks = {key: torch.rand(p.shape) > 0.3 for key, p in net.named_parameters() if p.ndim > 1}
    return Training(net, masks, recipe, StepRange(0, last), split, Seeds(), replicate=0, level=1, snapshot_step=2)


def outcome(training):
    state = {name: value.numpy().tobytes() for name, value in training.net.state_dict().items()}
    return state, training.progress.records, {key: value.numpy().tobytes() for key, value in training.snapshot.items()}


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("mlp", {"momentum": 0.9, "weight_decay": 0.1}),
        ("lenet-5", {"optimizer": "adam", "warmup": 3}),
        ("vgg11", {"momentum": 0.9, "schedule": "cosine"}),
        pytest.param("resnet-20", {"optimizer": "adamw", "weight_decay": 0.1}, marks=pytest.mark.long),
        ("lstm", {"optimizer": "adam"}),
    ],
)
def test_stopped_after_any_step_it_ends_in_the_same_bits(split, name, recipe):
    """Six steps over epochs of three, an evaluation every two: also in the middle of an epoch and of a mean loss."""
    plan = Recipe(batch_size=50, learning_rate=0.05, evaluate_every=2, steps=6, **recipe)
    states = []
    with seeded(1):
        whole = new_training(split, name, plan, 6, dropout=0.3)
        torch.manual_seed(7)
        whole.run(lambda state: states.append(state()), lambda step, record: None)
    assert len(states) == 6
    assert [record["step"] for record in whole.progress.records] == [0, 2, 4, 6]
    for state in states:
        with seeded(99):  # another state of the generator, which drop-out draws from
            resumed = new_training(split, name, plan, 6, dropout=0.3)
            resumed.restore(state)
            resumed.run(lambda state: None, lambda step, record: None)
        assert outcome(resumed) == outcome(whole)


def test_masked_weights_are_zero_after_every_step(split):
    plan = Recipe(batch_size=50, learning_rate=0.5, momentum=0.9, weight_decay=0.1, steps=4)
    training = new_training(split, "mlp", plan, 4)
    pruned = [(p, m == 0) for p, m in training.masked]
    assert all(where.any() for _, where in pruned)

    def check(state):
        assert not any(parameter[where].any() for parameter, where in pruned)

    training.run(check, lambda step, record: None)


def test_every_image_is_seen_once_an_epoch_and_the_last_batch_is_smaller(split):
    training = new_training(split, "mlp", Recipe(batch_size=50), 7)
    batches = list(training._batches())
    assert [len(batch) for batch in batches] == [50, 50, 33, 50, 50, 33, 50]
    first, second = (torch.cat(batches[start : start + 3]) for start in (0, 3))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(133))
    assert first.tolist() != second.tolist()
    training.progress.step = 4
    assert [batch.tolist() for batch in training._batches()] == [batch.tolist() for batch in batches[4:]]


def test_the_snapshot_is_the_state_after_its_step(split):
    nets = []
    for last, snapshot in ((2, None), (5, 2)):
        training = new_training(split, "vgg11", Recipe(batch_size=50, steps=9), last)
        training.snapshot_step = snapshot
        training.run(lambda state: None, lambda step, record: None)
        nets.append(training.snapshot or training.net.state_dict())
    for name, value in nets[0].items():
        assert torch.equal(value, nets[1][name]), name


def test_learning_rates():
    cosine = Recipe(schedule="cosine", learning_rate=0.1, warmup=4)
    assert [scheduled_rate(cosine, step, 100) for step in range(4)] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert scheduled_rate(cosine, 50, 100) == pytest.approx(0.05)
    assert scheduled_rate(cosine, 99, 100) < 1e-4
    constant = Recipe(learning_rate=0.1)
    assert {scheduled_rate(constant, step, 100) for step in range(100)} == {0.1}


# data


def test_the_split(split):
    assert [len(part[1]) for part in (split.train, split.validation, split.test)] == [133, 67, 500]
    assert split.image_shape == (1, 8, 8)
    together = torch.cat([split.train[0], split.validation[0]]).flatten(1).numpy()
    expected = (FEW.train_images / np.float32(16) - 0.5) / 0.5
    assert sorted(map(bytes, together)) == sorted(map(bytes, expected.astype(np.float32)))
    np.testing.assert_array_equal(split.test[0].flatten(1), (DIGITS.test_images / np.float32(16) - 0.5) / 0.5)
    other = split_data(FEW, DataPlan(name="digits", validation=67), 1, CPU)
    assert not torch.equal(other.train[0], split.train[0])


def test_a_share_is_held_out_and_normalisation_is_of_the_rest():
    split = split_data(DIGITS, DataPlan(name="digits", validation=0.1, normalization="standard"), 0, CPU)
    assert len(split.validation[1]) == 130
    assert float(split.train[0].mean()) == pytest.approx(0, abs=1e-5)
    assert float(split.train[0].std()) == pytest.approx(1, abs=1e-3)
    assert abs(float(split.validation[0].mean())) > 1e-5


def test_padding_is_background_all_round():
    split = split_data(DIGITS, DataPlan(name="digits", image_size=11), 0, CPU)
    images = split.test[0]
    assert images.shape == (500, 1, 11, 11)
    np.testing.assert_array_equal(images[:, 0, 1:9, 1:9].flatten(1), (DIGITS.test_images / np.float32(16) - 0.5) / 0.5)
    images[:, :, 1:9, 1:9] = -1
    assert (images == -1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 7}, "'image_size' must be at least the 8 pixels that there are, not 7"),
        ({"validation": 1297}, "'validation' must leave some of the 1297 images on both sides, not 1297"),
        ({"validation": 1e-9}, "on both sides, not 1e-09"),
    ],
)
def test_data_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        split_data(DIGITS, DataPlan(name="digits", **change), 0, CPU)


# random numbers


def test_streams_replicates_levels_and_parts_never_share_a_seed():
    places = [("init", 0, 0, 0), ("order", 0, 0, 0), ("init", 1, 0, 0), ("init", 0, 1, 0), ("init", 0, 0, 1)]
    states = {tuple(generator_seed(5, *place).generate_state(2)) for place in places}
    assert len(states) == len(places)


def test_seeded_puts_the_generator_back():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    with seeded(2):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)
    with seeded(2):
        assert torch.equal(torch.rand(3), first)


def test_the_clock(monkeypatch):
    now = [10.0]
    monkeypatch.setattr("torch_bridge.training.loop.time.monotonic", lambda: now[0])
    clock = Clock(5)
    assert not clock.strikes()
    now[0] = 15.0
    assert clock.strikes()
    assert not clock.strikes()


# nets


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("side", [8, 28, 32])
def test_nets_give_log_probabilities_on_every_size(name, side):
    torch.manual_seed(0)
    net = build_model(ModelPlan(name=name, **SMALL.get(name, {})), side, channels=3).eval()
    images = torch.randn(4, 3, side, side)
    scores = net(images)
    torch.testing.assert_close(scores.exp().sum(dim=1), torch.ones(4))
    torch.testing.assert_close(net(images[1:2]), scores[1:2], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(net.train()(-images), net(images))


def test_sizes_of_the_nets():
    """Weights as in their papers; Table 1 has these architectures."""

    def weights(name, **options):
        net = build_model(ModelPlan(name=name, **options), 32 if name != "lenet-300-100" else 28)
        return [p.numel() for key, p in net.named_parameters() if p.ndim > 1]

    assert weights("lenet-300-100") == [235200, 30000, 1000]
    assert weights("mlp", hidden=(100,) * 5) == [102400, 10000, 10000, 10000, 10000, 1000]
    assert len(weights("vgg11")) == 9
    assert weights("vgg11")[1:] == [73728, 294912, 589824, 1179648, *[2359296] * 3, 5120]
    assert len(weights("resnet-20")) == 20 + 2  # two 1x1 shortcuts
    assert sum(weights("resnet-20")) == 270896 - 288  # one input channel instead of three
    assert weights("lstm") == [4 * 128 * 32, 4 * 128 * 128, 1280]


def test_maps_of_vgg11_are_those_of_table_1():
    net = build_model(ModelPlan(name="vgg11", width=2), 32)
    traced = trace(net, torch.zeros(1, 1, 32, 32))
    assert [traced.convs(conv)[0].output_size[0] for conv in net.convs] == [32, 16, 8, 8, 4, 4, 2, 2]


def test_gaussian_glorot():
    net = build_model(ModelPlan(name="lenet-300-100", initialization="glorot"), 28)
    assert float(net.layers[0].weight.detach().std()) == pytest.approx((2 / 1084) ** 0.5, rel=0.02)
    assert not net.layers[0].bias.any()
    norms = build_model(ModelPlan(name="vgg11", width=2, initialization="glorot"), 8).norms
    assert (norms[0].weight == 1).all()


def test_images_too_small_for_lenet_5_are_refused():
    with pytest.raises(ValueError, match="'image_size' must be an integer of at least 4, not 3"):
        build_model(ModelPlan(name="lenet-5"), 3)
