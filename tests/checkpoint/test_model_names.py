"""Names of the model: prefixes of wrappers stripped, weights that are stored in parts joined."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from topobounds.checkpoint import CheckpointError, open_checkpoint

RNG = np.random.default_rng(3)
MATRIX = RNG.standard_normal((4, 3))


@pytest.fixture
def written(tmp_path):
    def write(**arrays):
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, tmp_path / "x.safetensors")
        return open_checkpoint(tmp_path / "x.safetensors")

    return write


@pytest.mark.parametrize(
    ("stored", "names"),
    [
        (["module.a.weight", "module.b.weight"], ["a.weight", "b.weight"]),
        (["module.module.a", "module.module.b"], ["a", "b"]),
        (["module._orig_mod.a", "module._orig_mod.b"], ["a", "b"]),
        (["_orig_mod.module.a", "_orig_mod.module.b"], ["a", "b"]),
        (["enc._orig_mod.a", "b"], ["enc.a", "b"]),
        (["module.a", "b"], ["module.a", "b"]),
        (["n_averaged", "module.a"], ["n_averaged", "a"]),
        (["_orig_mod.a", "a"], ["_orig_mod.a", "a"]),
        (["my_orig_mod.a"], ["my_orig_mod.a"]),
    ],
)
def test_prefixes_of_wrappers_are_stripped_and_told(written, stored, names):
    checkpoint = written(**{name: np.full(2, i) for i, name in enumerate(stored)})
    assert sorted(checkpoint.names) == sorted(names)
    changed = {name: old for name, old in zip(names, stored, strict=True) if name != old}
    assert checkpoint.stored_as == changed
    for i, name in enumerate(names):
        assert checkpoint.tensor(name).tolist() == [i, i]


def test_a_pruned_weight_is_the_product_of_its_parts(written):
    mask = MATRIX > 0
    checkpoint = written(**{"a.weight_orig": MATRIX, "a.weight_mask": mask, "a.bias": np.ones(3)})
    assert sorted(checkpoint.names) == ["a.bias", "a.weight"]
    assert np.array_equal(checkpoint.tensor("a.weight"), MATRIX * mask)
    assert (checkpoint.shape("a.weight"), checkpoint.dtype("a.weight")) == ((4, 3), np.float64)
    assert checkpoint.stored_as == {"a.weight": "a.weight_orig * a.weight_mask"}


def test_a_pruned_weight_that_is_not_finite_is_zero_where_it_is_masked(written):
    checkpoint = written(weight_orig=[[np.nan, 1.0]], weight_mask=[[0.0, 1.0]])
    assert checkpoint.tensor("weight").tolist() == [[0, 1]]


@pytest.mark.parametrize(
    "names",
    [("a.weight_g", "a.weight_v"), ("a.parametrizations.weight.original0", "a.parametrizations.weight.original1")],
)
@pytest.mark.parametrize("axes", [(1, 2), (0, 1), (0, 1, 2)])
def test_weight_normalisation_is_undone(written, names, axes):
    direction = RNG.standard_normal((4, 3, 2)).astype(np.float32)
    shape = () if len(axes) == 3 else [1 if axis in axes else size for axis, size in enumerate(direction.shape)]
    norm = RNG.uniform(1, 2, shape).astype(np.float32)
    checkpoint = written(**dict(zip(names, (norm, direction), strict=True)))
    assert checkpoint.names == ("a.weight",)
    weight = checkpoint.tensor("a.weight")
    assert weight.dtype == np.float32
    assert np.allclose(np.sqrt((weight.astype(float) ** 2).sum(axis=axes)), norm.squeeze(), rtol=1e-6)
    assert np.ptp(weight / direction, axis=axes).max() < 1e-5
    assert (weight / direction).min() > 0


def test_other_parametrisations_are_left_out_with_the_reason(written):
    checkpoint = written(**{"a.parametrizations.weight.original": MATRIX, "a.bias": np.ones(3)})
    assert checkpoint.names == ("a.bias",)
    (reason,) = checkpoint.left_out.values()
    assert reason == "part of 'a.weight', which is parametrised by a function that the file does not hold"


@pytest.mark.parametrize(
    "arrays",
    [
        {"w_orig": MATRIX},
        {"w_orig": MATRIX, "w_u": MATRIX[0], "w_v": MATRIX[0]},
        {"w_g": MATRIX, "w_v": MATRIX[:2]},
        {"w_g": MATRIX[0], "w_v": MATRIX[1]},
    ],
)
def test_what_only_looks_like_parts_is_left_as_it_is(written, arrays):
    assert sorted(written(**arrays).names) == sorted(arrays)


def test_a_pruned_weight_whose_mask_is_of_another_shape_is_left_out(written):
    checkpoint = written(w_orig=MATRIX, w_mask=MATRIX[:1], b=MATRIX)
    assert checkpoint.names == ("b",)
    assert checkpoint.left_out == dict.fromkeys(("w_orig", "w_mask"), "part of 'w', whose mask is of another shape")


def test_a_mask_that_is_not_only_0_and_1_scales(written):
    checkpoint = written(w_orig=[[2.0, 4.0, np.inf]], w_mask=[[0.5, 1.0, 0.0]])
    assert checkpoint.tensor("w").tolist() == [[1, 4, 0]]


def test_a_pruned_weight_with_a_damaged_part_is_refused_by_itself(tmp_path):
    np.savez(tmp_path / "x.npz", w_orig=MATRIX, w_mask=np.ones((4, 3)), b=MATRIX)
    content = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(
        content.replace(b"'<f8', 'fortran_order': False", b"'<q8', 'fortran_order': False", 2)
    )
    with open_checkpoint(tmp_path / "x.npz") as checkpoint:
        assert np.array_equal(checkpoint.tensor("b"), MATRIX)
        with pytest.raises(CheckpointError, match="tensor 'w_mask', is damaged"):
            checkpoint.tensor("w")


@pytest.mark.parametrize(
    "names", [("w_orig", "w_u", "w_v"), tuple(f"parametrizations.w.{part}" for part in ("original", "0._u", "0._v"))]
)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_weight_over_its_spectral_norm(written, names, axis):
    kernel = RNG.standard_normal((3, 3, 2))
    matrix = np.moveaxis(kernel, axis, 0).reshape(3, 6)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    checkpoint = written(**dict(zip(names, (kernel, left[:, 0], right[0]), strict=True)))
    assert checkpoint.names == ("w",)
    assert np.allclose(checkpoint.tensor("w"), kernel / values[0], rtol=1e-12)
    assert checkpoint.stored_as == {"w": f"{names[0]} / ({names[1]} · {names[0]} {names[2]})"}


def test_weights_that_overflow_in_their_norm_raise_no_warning(written):
    checkpoint = written(w_g=np.ones((4, 1)), w_v=np.full((4, 3), 1e200))
    assert checkpoint.tensor("w").shape == (4, 3)


def test_rewriting_keeps_the_stored_names(written, tmp_path):
    checkpoint = written(**{"module.a": MATRIX, "module.b": MATRIX})
    checkpoint.rewrite(tmp_path / "y.safetensors", lambda name, array: array * (name == "b"))
    with open_checkpoint(tmp_path / "y.safetensors") as new:
        assert new.stored_as == checkpoint.stored_as
        assert not new.tensor("a").any()
        assert np.array_equal(new.tensor("b"), MATRIX)


def test_rewriting_a_pruned_weight_changes_its_mask(written, tmp_path):
    mask = MATRIX > 0
    checkpoint = written(w_orig=MATRIX, w_mask=mask.astype(np.float32))
    same, new = tmp_path / "same.safetensors", tmp_path / "new.safetensors"
    checkpoint.rewrite(same, lambda name, array: array)
    assert same.read_bytes() == checkpoint.path.read_bytes()
    checkpoint.rewrite(new, lambda name, array: array * (MATRIX > 1))
    parts = load_file(new)
    assert np.array_equal(parts["w_mask"], (MATRIX > 1).astype(np.float32))
    assert np.array_equal(parts["w_orig"], MATRIX)
    other = tmp_path / "other.safetensors"
    checkpoint.rewrite(other, lambda name, array: np.full_like(array, 3))
    assert np.array_equal(open_checkpoint(other).tensor("w"), np.full((4, 3), 3.0))


def test_a_zero_that_is_not_masked_stays_so(written, tmp_path):
    checkpoint = written(w_orig=[[0.0, 2.0]], w_mask=[[1.0, 1.0]])
    checkpoint.rewrite(tmp_path / "y.safetensors", lambda name, array: array * [[1.0, 0.0]])
    parts = load_file(tmp_path / "y.safetensors")
    assert (parts["w_mask"].tolist(), parts["w_orig"].tolist()) == ([[1, 0]], [[0, 2]])


def test_a_normalised_weight_cannot_be_changed(written, tmp_path):
    checkpoint = written(w_g=np.ones((4, 1)), w_v=MATRIX)
    checkpoint.rewrite(tmp_path / "y.safetensors", lambda name, array: array)
    with pytest.raises(CheckpointError, match=r"tensor 'w', cannot be rewritten: it is stored as w_g \* w_v"):
        checkpoint.rewrite(tmp_path / "z.safetensors", lambda name, array: array * 0)
