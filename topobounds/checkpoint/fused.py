"""Projections in one tensor: query, key and value of attention, gate and up of a gated layer; GPT-2's linear layers."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from topobounds.checkpoint.stored import Stored, StoredTensors
from topobounds.layers import LayerTensor
from topobounds.layers.layout import ROWS, Layout

QKV = ("query", "key", "value")
GATED = ("gate", "up")
ONE_AFTER_THE_OTHER = "{} lie one after the other"
_FUSED = {"qkv", "qkv_proj", "wqkv", "query_key_value", "c_attn", "to_qkv", "w_pack", "attn_qkv", "qkv_linear"}
_UNORDERED = {"query_key_value", "wqkv", "linear_qkv"}
"""Names under which heads are stored one by one, or not, as the model has it."""
_PER_HEAD = {"bloom", "chatglm", "falcon", "gpt_bigcode", "gpt_neox", "gpt_neox_japanese", "persimmon"}
"""Models that store query, key and value head by head, where each head has its own key and value."""
_PER_GROUP = {"falcon", "internlm2"}
"""Models that store them group by group, where heads share a key and a value."""
_IN_A_ROW = {
    "baichuan", "chatglm", "dbrx", "falcon", "gpt2", "gpt_bigcode", "imagegpt", "jais", "modernbert", "mpt",
    "nomic_bert", "openai-gpt", "phi3", "phi3_v", "phimoe", "qwen", "qwen2_vl", "qwen2_5_vl",
}  # fmt: skip
"""Models that store them one after the other; of those named twice the config decides."""
_CONV1D_MODELS = ("gpt2", "openai-gpt", "imagegpt", "jais", "decision_transformer")
_CONV1D_LAYERS = ("c_attn", "c_proj", "c_fc", "q_attn")
_GATED_MODELS = ("phi3", "phi3_v", "phi4mm", "glm", "glm4", "glm4v", "dots1", "step3")


class Heads(NamedTuple):
    """Heads of attention, those of keys and values, and the width of each."""

    query: int
    shared: int
    width: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Outputs of the three projections."""
        return self.query * self.width, self.shared * self.width, self.shared * self.width


def read_fused(stored: Stored) -> LayerTensor | None:
    """Return the projections of a fused matrix of attention or of a gated layer; None where it is neither."""
    if len(stored.shape) != 2:
        return None
    named = stored.module if stored.leaf in ("weight", "kernel") else stored.leaf
    if named.lower() in _FUSED or named == "linear_qkv":
        return _read_qkv(stored, named.lower())
    if named == "gate_up_proj" and stored.shape[0] % 2 == 0:
        assumed = None if stored.tensors.is_model_type(*_GATED_MODELS) else ONE_AFTER_THE_OTHER.format("gate and up")
        return LayerTensor(stored.name, stored.shape, parts=GATED, words=projection_words(GATED), assumed=assumed)
    return None


def read_conv1d(stored: Stored) -> LayerTensor | None:
    """Return a linear layer of GPT-2, which stores its inputs first; None where it is none."""
    why = _inputs_first(stored)
    return None if why is None else LayerTensor(stored.name, stored.shape, inputs_first=True, assumed=why or None)


def projection_words(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Return what projections in one tensor are, for people."""
    return tuple(f"{part} projection, {place} of {len(parts)}" for place, part in enumerate(parts, 1))


def _inputs_first(stored: Stored) -> str | None:
    """Return why the inputs of a linear layer of GPT-2 come first: empty where the config says so; None elsewhere."""
    if stored.module not in _CONV1D_LAYERS or stored.leaf != "weight" or len(stored.shape) != 2:
        return None
    if stored.tensors.config.get("model_type") or stored.tensors.architectures:
        known = stored.tensors.is_model_type(*_CONV1D_MODELS) or any(
            "GPT2" in name for name in stored.tensors.architectures
        )
        return "" if known else None
    rows, columns = stored.shape
    if stored.bias is not None and rows != columns:
        return "inputs first, as the bias is as long as a row" if stored.bias == columns else None
    fused = (Stored(name, stored.tensors) for name in stored.tensors.matrices if name.endswith("c_attn.weight"))
    first = next(fused, None)
    wide = first is not None and first.shape[1] in (3 * first.shape[0], first.bias) and first.shape[0] != first.bias
    return "inputs first, as in 'c_attn'" if wide else None


def _read_qkv(stored: Stored, named: str) -> LayerTensor:
    why = _inputs_first(stored)
    inputs_first = why is not None
    columns, rows = stored.shape if inputs_first else stored.shape[::-1]
    notes = [why] if why else []
    layout, note = _qkv_layout(stored, named, rows, columns)
    notes += [note] if note else []
    parts = QKV if layout is not None else ("",)
    layout = layout or ROWS
    if inputs_first:
        layout = Layout(axis=1, sizes=layout.sizes, interleaved=layout.interleaved)
    words = projection_words(QKV) if len(parts) > 1 else ("query, key and value in one",)
    assumed = "; ".join(notes) or None
    if layout.sizes and stored.tensors.is_model_type("codegen"):
        parts, words = ("query", "value", "key"), projection_words(("query", "value", "key"))
    return LayerTensor(
        stored.name, stored.shape, parts=parts, inputs_first=inputs_first, layout=layout, words=words, assumed=assumed
    )


def _qkv_layout(stored: Stored, named: str, rows: int, columns: int) -> tuple[Layout | None, str | None]:
    """Return how query, key and value lie in so many rows, and what is assumed; no layout where it is not told."""
    heads = next((each for each in _heads(stored.tensors.config, columns) if sum(each.sizes) == rows), None)
    sizes = (rows // 3,) * 3 if heads is None and rows == 3 * columns else heads.sizes if heads else ()
    interleaved = _interleaved(stored.tensors, heads, sizes)
    if interleaved is not None:
        return Layout(sizes=sizes, interleaved=interleaved), None
    if named in _UNORDERED:
        return None, "one graph: in what order the heads lie, no config.json tells"
    if not sizes:
        return None, "one graph: no config.json tells the widths of query, key and value"
    return Layout(sizes=sizes), ONE_AFTER_THE_OTHER.format("query, key and value")


def _interleaved(tensors: StoredTensors, heads: Heads | None, sizes: tuple[int, ...]) -> int | None:
    """Return in how many groups a known model stores query, key and value; None of another model."""
    if tensors.is_model_type("codegen") and len(set(sizes)) == 1 and sizes[0] % 4 == 0:
        return 4
    if heads is not None and heads.query == heads.shared and tensors.is_model_type(*_PER_HEAD):
        if not _multi_query(tensors.config):
            return heads.query
    elif (
        heads is not None
        and tensors.is_model_type(*_PER_GROUP)
        and (heads.shared > 1 or not _multi_query(tensors.config))
    ):
        return heads.shared
    return 1 if sizes and tensors.is_model_type(*_IN_A_ROW) else None


def _heads(config: Mapping[str, Any], columns: int) -> Iterator[Heads]:
    """Yield the heads that a config describes, of the model and of the parts that it describes by themselves."""
    for each in (config, *(value for value in config.values() if isinstance(value, Mapping))):
        query = _number(each, "num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads")
        if query is None:
            continue
        hidden = _number(each, "hidden_size", "n_embd", "d_model", "embed_dim", "dim") or columns
        width = _number(each, "head_dim", "kv_channels", "attention_head_size") or hidden // query
        attention = each.get("attn_config")
        fewer = _number(each, "multi_query_group_num") if each.get("multi_query_attention") else None
        fewer = fewer or _number(each, "num_key_value_heads", "num_kv_heads", "n_head_kv", "n_kv_heads")
        if isinstance(attention, Mapping):
            fewer = fewer or _number(attention, "kv_n_heads")
        for shared in (1 if _multi_query(each) else None, fewer, query):
            if shared:
                yield Heads(query, shared, width)


def _multi_query(config: Mapping[str, Any]) -> bool:
    """Whether all heads share one key and one value, or the config describes groups of them by that name."""
    one = bool(config.get("multi_query")) and not config.get("new_decoder_architecture")
    return one or bool(config.get("multi_query_attention"))


def _number(config: Mapping[str, Any], *names: str) -> int | None:
    found = (config.get(name) for name in names)
    return next((value for value in found if type(value) is int and value > 0), None)
