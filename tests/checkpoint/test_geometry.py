"""What a user says of tensors in a geometry file: obeyed, or refused with the nearest right name."""

import numpy as np
import pytest

from tests.checkpoint.fixtures import random_arrays
from topobounds import layer_tensors
from topobounds.checkpoint import CheckpointError
from topobounds.checkpoint.geometry import KEYS
from topobounds.checkpoint.layer_tensors import read_layer_tensors
from topobounds.layers import Conv, Dense, Recurrent

ARRAYS = random_arrays(
    {
        "stem.conv.weight": (8, 3, 5, 5),
        "stem.norm.weight": (8,),
        "a.conv.weight": (8, 2, 3, 3),
        "b.conv.weight": (8, 8, 3, 3),
        "attn.qkv.weight": (16, 8),
        "cell.weight_ih": (12, 4),
        "table": (7, 3),
        "stack": (3, 4, 6),
        "keras": (3, 3, 4, 5),
        "fc.weight": (6, 6),
    }
)


def told(geometry, **asked):
    """Return the layers by name, as they are read with a geometry."""
    reading = read_layer_tensors(ARRAYS, geometry=geometry, **asked)
    for tensor in reading.layers:
        parts = tensor.split(ARRAYS[tensor.name])
        assert np.array_equal(tensor.join(parts), ARRAYS[tensor.name])
        assert len(parts) == len(tensor.read_as)
    return {tensor.name: tensor for tensor in reading.layers}, reading.left_out


def test_a_file_tells_the_geometry_of_kernels(tmp_path):
    file = tmp_path / "geometry.toml"
    file.write_text(
        '["*.conv.weight"]\ninput = 16\npadding = 1\nstride = 1\n'
        '["stem.conv.weight"]\nstride = [2, 1]\npadding = 2\ninput = [32, 24]\n'
        '["a.conv.weight"]\ngroups = 4\ndilation = 2\npadding_mode = "circular"\n'
        '["b.conv.weight"]\ntransposed = true\nstride = 2\noutput_padding = 1\n'
    )
    layers, _ = told(file)
    assert layers["stem.conv.weight"].geometry == Conv(3, 8, (5, 5), (32, 24), (2, 1), 2)
    grouped = Conv(8, 8, (3, 3), (16, 16), 1, 1, 2, groups=4, padding_mode="circular")
    assert layers["a.conv.weight"].geometry == grouped
    up = Conv(8, 8, (3, 3), (16, 16), 2, 1, transposed=True, output_padding=1)
    assert layers["b.conv.weight"].geometry == up
    assert not any(layers[name].assumed for name in ("stem.conv.weight", "a.conv.weight", "b.conv.weight"))


def test_what_is_not_told_is_still_assumed():
    layers, _ = told({"a.conv.weight": {"groups": 2}, "b.conv.weight": {"input": 9}, "stem.*": {"stride": 3}})
    assert layers["a.conv.weight"].geometry.in_channels == 4
    assert layers["a.conv.weight"].assumed == "stride 1, same padding, a map of 8x8"
    assert layers["b.conv.weight"].assumed == "stride 1, same padding"
    assert layers["stem.conv.weight"].geometry.padding == (2, 2)
    same, _ = told({"a.conv.weight": {"padding": "same", "dilation": 2}}, input_size=(3, 20, 20))
    assert same["a.conv.weight"].geometry.output_size == (20, 20)


def test_parts_gates_and_kinds_are_told():
    layers, left_out = told(
        {
            "attn.qkv.weight": {"parts": ["query", "key", "value"], "sizes": [8, 4, 4], "interleaved": 2},
            "cell.weight_ih": {"gates": "GRU"},
            "table": {"kind": "embedding"},
            "stack": {"kind": "dense", "stacked": True, "inputs_first": True, "parts": 2},
            "keras": {"kind": "conv", "channels_last": True, "padding": 1, "stride": 1, "input": 8},
            "fc.weight": {"kind": "recurrent"},
            "a.*": {"kind": "none"},
        }
    )
    fused = layers["attn.qkv.weight"]
    assert np.array_equal(fused.split(ARRAYS[fused.name])[1], ARRAYS[fused.name][[4, 5, 12, 13]])
    assert fused.part_names[1] == "attn.qkv.weight[key]"
    assert layers["cell.weight_ih"].parts == ("reset", "update", "new")
    assert layers["cell.weight_ih"].read_as[0] == "gate 1 of 3 (reset), 4 inputs x 4 outputs"
    assert (layers["table"].kind, layers["table"].graph) == ("embedding", Dense(7, 3))
    stack = layers["stack"]
    assert (stack.parts, stack.graphs) == (("0 0", "0 1", "1 0", "1 1", "2 0", "2 1"), (Dense(4, 3),) * 6)
    assert np.array_equal(stack.split(ARRAYS["stack"])[3], ARRAYS["stack"][1, :, 3:])
    assert layers["keras"].geometry == Conv(4, 5, (3, 3), (8, 8), padding=1)
    assert layers["fc.weight"].graph == Recurrent(6)
    assert left_out["a.conv.weight"] == "left out by the geometry file"
    assert not any(layers[name].assumed for name in ("attn.qkv.weight", "cell.weight_ih", "table", "stack", "keras"))


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ({"stem.conv.wieght": {"stride": 2}}, r"wieght', matches no tensor; the nearest are stem.conv.weight"),
        ({"stem.conv.weight": {"strid": 2}}, r"has an unknown key 'strid'; 'stride' is the nearest\.$"),
        ({"stem.conv.weight": {"zzz": 2}}, r"has an unknown key 'zzz'; there are kind, inputs_first"),
        ({"stem.conv.weight": {"stride": 0}}, r"cannot be used: Argument 'stride' must be a positive integer, not 0"),
        ({"stem.conv.weight": {"stride": [1, 2, 3]}}, r"says of 'stem.conv.weight' \(8, 3, 5, 5\): Argument 'stri"),
        ({"stem.conv.weight": {"input": [1, 2, 3]}}, r"Argument 'input' must be a number or 2 of them"),
        ({"stem.conv.weight": {"groups": 3}}, r"Argument 'groups' must divide"),
        ({"stem.conv.weight": {"input": 2, "padding": 0}}, r"'kernel_size' must fit the padded input"),
        ({"stem.conv.weight": {"padding_mode": "mirror"}}, r"one of 'zeros', 'circular', .*, not 'mirror'"),
        ({"stem.conv.weight": {"padding": "all"}}, r"Argument 'padding' must be one of 'same', 'valid', not 'all'"),
        ({"fc.weight": {"kind": "densse"}}, r"Argument 'kind' must be one of .*, perhaps 'dense', not 'densse'"),
        ({"fc.weight": {"stride": 2}}, r"is of a tensor that is read as dense, not as a kernel"),
        ({"fc.weight": {"kind": "dense", "stride": 2}}, r"is told to be dense, and has keys of kernels"),
        ({"fc.weight": {"kind": "conv"}}, r"a kernel has 3 to 5 dimensions, this has 2"),
        ({"fc.weight": {"parts": 4}}, r"4 blocks of .* cannot be cut from 6 rows or columns"),
        ({"fc.weight": {"parts": []}}, r"'parts' must be a number, or a list of names, not \[\]"),
        ({"fc.weight": {"gates": "LSTN"}}, r"'gates' must be one of 'RNN', 'GRU', 'LSTM', not 'LSTN'"),
        ({"fc.weight": {"sizes": 3}}, r"'sizes' must be a list of lengths, one for each part, not 3"),
        ({"cell.weight_ih": {"kind": "recurrent"}}, r"hidden to hidden is square, this is 12 x 4"),
        ({"stem.norm.weight": {"stride": 2}}, r"is of a tensor that is no array of weights: norm"),
        ({"*norm*": {"stride": 2}}, r"table '\*norm\*', matches no tensor of which this can be said"),
        ({"fc.weight": 3}, r"must be a table of kind"),
        ({"fc.weight": {}}, r"must be a table of kind"),
        ({"fc": {"weight": {"kind": "conv"}}}, r"must be in quotation marks"),
        ({"fc.weight": {"inputs_first": 1}}, r"'inputs_first' must be True or False, not 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(geometry, message):
    with pytest.raises(ValueError, match=message):
        told(geometry)


def test_files_that_are_no_geometry_are_refused(tmp_path):
    file = tmp_path / "geometry.toml"
    with pytest.raises(CheckpointError, match=r"geometry\.toml"):
        told(file)
    file.write_text("stride = ")
    with pytest.raises(CheckpointError, match=r"geometry\.toml is damaged"):
        told(file)
    file.write_text("stride = " + "[" * 100_000)
    with pytest.raises(CheckpointError, match=r"geometry\.toml is damaged.*nested too deeply"):
        told(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"geometry\.toml is damaged"):
        told(file)
    with pytest.raises(ValueError, match="'geometry' must be the name of a file"):
        told("")
    with pytest.raises(CheckpointError, match="Is a directory"):
        told(tmp_path)


def test_a_table_whose_name_is_not_printable_is_named_on_one_line():
    for table in ({"stride": 1}, {"strid": 1}, {"stride": "\n\x1b[31m"}, {"a\nb": {}}):
        with pytest.raises(ValueError, match=r"table '\\tcon\?'") as refused:
            told({"\tcon?": table})
        assert str(refused.value).isprintable()


def test_every_key_is_described():
    assert all(f"``{key}``" in layer_tensors.__doc__ for key in KEYS)
