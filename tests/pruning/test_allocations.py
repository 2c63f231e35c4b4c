"""How weights are shared out: exact counts, bounds kept, and each allocation's rule against a slow reading of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topobounds.layers import LayerTensor
from topobounds.pruning.allocations import ALLOCATIONS, FROM_FILE, LEVELS, Profile, allocated
from topobounds.topology.layer_topology import layer_topology


def profile_of(weights):
    topology = layer_topology(LayerTensor("a", weights.shape), weights)
    return Profile.of(topology, weights.size, int(np.count_nonzero(weights)))


def plain(size, survivors=None, share=0.0):
    return Profile(
        size, size if survivors is None else survivors, size // 2, np.linspace(0, size // 2, LEVELS + 1), share
    )


@given(
    st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8),
    st.floats(0, 1),
    st.sampled_from(sorted(ALLOCATIONS)),
)
def test_counts_are_exact_and_within_their_bounds(tensors, part, name):
    profiles = [plain(size, round(size * alive)) for size, alive, _ in tensors]
    least = [round(profile.survivors * floor) for profile, (_, _, floor) in zip(profiles, tensors, strict=True)]
    total = sum(least) + round(part * (sum(profile.survivors for profile in profiles) - sum(least)))
    counts = allocated(profiles, total, ALLOCATIONS[name], least)
    assert counts.sum() == total
    assert all(low <= count <= each.survivors for low, count, each in zip(least, counts, profiles, strict=True))


def test_one_density_is_that_of_every_tensor_that_has_room():
    sizes, total = [1000, 333, 70, 10], 424
    counts = allocated([plain(size) for size in sizes], total, ALLOCATIONS["uniform"])
    assert all(abs(count - total / sum(sizes) * size) < 1 for count, size in zip(counts, sizes, strict=True))


def test_in_proportion_to_what_magnitude_would_need():
    rng = np.random.default_rng(0)
    profiles = [profile_of(rng.standard_normal(shape)) for shape in ((40, 30), (30, 10), (60, 60))]
    needs = [profile.critical_rank for profile in profiles]
    counts = allocated(profiles, sum(needs) // 2, ALLOCATIONS["safe"])
    assert all(abs(count - need / 2) <= 1 for count, need in zip(counts, needs, strict=True))


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_magnitude_keeps_one_share_of_every_forest(share):
    rng = np.random.default_rng(1)
    layers = [rng.standard_normal((40, 30)), 7 * rng.standard_t(3, (200, 50)), rng.uniform(-1, 1, (60, 60))]
    forests = [layer_topology(LayerTensor("a", layer.shape), layer).forests[0] for layer in layers]
    total = sum(int(forest.ranks[round(share * forest.alpha) - 1]) for forest in forests)
    counts = allocated([profile_of(layer) for layer in layers], total, ALLOCATIONS["retention"])
    kept = [forest.overlap(int(count)) for forest, count in zip(forests, counts, strict=True)]
    assert all(abs(each - share) < 0.02 for each in kept)
    assert allocated([profile_of(layer) for layer in layers], 0, ALLOCATIONS["retention"]).tolist() == [0, 0, 0]


def test_beyond_all_critical_ranks_retention_goes_on_to_all_weights():
    rng = np.random.default_rng(2)
    layers = [rng.standard_normal((20, 10)), rng.standard_normal((30, 10))]
    profiles = [profile_of(layer) for layer in layers]
    assert allocated(profiles, 500, ALLOCATIONS["retention"]).tolist() == [200, 300]
    counts = allocated(profiles, 480, ALLOCATIONS["retention"])
    assert all(count > profile.critical_rank for count, profile in zip(counts, profiles, strict=True))


def test_the_shares_of_a_file_and_no_share_at_all():
    profiles = [plain(100, share=30.0), plain(100, share=60.0), plain(50)]
    assert allocated(profiles, 90, FROM_FILE).tolist() == [30, 60, 0]
    assert allocated(profiles, 45, FROM_FILE).tolist() == [15, 30, 0]
    assert allocated(profiles, 45, FROM_FILE, [20, 0, 0]).tolist() == [20, 25, 0]
    assert allocated(profiles, 240, FROM_FILE).tolist() == [100, 100, 40]
