"""Checkpoints as others write them, generated small and from a seed: folders, caches, language models, adapters.

``python -m tests.checkpoint.fixtures FOLDER`` writes all of them, each into a folder of its name.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

SEED = 13
WIDTH = 16


def random_arrays(shapes, seed=SEED, dtype=np.float32):
    """Return normal arrays of these shapes, by name."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def write_model(folder, arrays, config=None, name="model.safetensors"):
    """Write one file and its config.json, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(arrays, folder / name, {"format": "pt"})
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def llama_arrays(layers=2, width=WIDTH, heads=4, shared=2, vocabulary=40):
    """Return the tensors of a small model like Llama, without an output head."""
    wide, head = 3 * width, width // heads
    shapes = {"model.embed_tokens.weight": (vocabulary, width), "model.norm.weight": (width,)}
    for layer in range(layers):
        block = f"model.layers.{layer}"
        rows = {"q_proj": width, "k_proj": shared * head, "v_proj": shared * head, "o_proj": width}
        shapes |= {f"{block}.self_attn.{name}.weight": (n, width) for name, n in rows.items()}
        shapes |= {f"{block}.mlp.{name}.weight": (wide, width) for name in ("gate_proj", "up_proj")}
        shapes |= {f"{block}.mlp.down_proj.weight": (width, wide), f"{block}.input_layernorm.weight": (width,)}
    return random_arrays(shapes)


def sharded(folder):
    """Write two shards, their index, a head that is tied by the config, and a shard that the index does not name."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = llama_arrays()
    shards = {name: f"model-0000{1 + ('layers.1' in name)}-of-00002.safetensors" for name in arrays}
    for shard in sorted(set(shards.values())):
        save_file({name: array for name, array in arrays.items() if shards[name] == shard}, folder / shard)
    save_file({"model.layers.1.mlp.up_proj.weight": np.ones((2, 2), "f4")}, folder / "model-00003-of-00003.safetensors")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    index = {"metadata": {"total_size": sum(array.nbytes for array in arrays.values())}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def symlinked_cache(folder):
    """Write a model as the cache of Hugging Face holds it, and return the folder of symbolic links."""
    stored = sharded(folder / "stored")
    blobs = folder / "models--someone--model" / "blobs"
    snapshot = folder / "models--someone--model" / "snapshots" / "0123456789abcdef"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(stored.iterdir())):
        blob = blobs / f"{number:040x}"
        file.rename(blob)
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", blob.name))
    stored.rmdir()
    return snapshot


def gpt2(folder, config=True):
    """Write a block of GPT-2, whose linear layers store their inputs first, as its config says; or without one."""
    block, width = "transformer.h.0", WIDTH
    shapes = {"transformer.wte.weight": (40, width), "transformer.wpe.weight": (10, width)}
    layers = {"attn.c_attn": 3 * width, "attn.c_proj": width, "mlp.c_fc": 4 * width}
    for name, n in layers.items():
        shapes |= {f"{block}.{name}.weight": (width, n), f"{block}.{name}.bias": (n,)}
    shapes |= {f"{block}.mlp.c_proj.weight": (4 * width, width), f"{block}.mlp.c_proj.bias": (width,)}
    shapes |= {f"{block}.ln_1.weight": (width,), f"{block}.ln_1.bias": (width,)}
    arrays = random_arrays(shapes)
    arrays[f"{block}.attn.bias"] = np.tril(np.ones((1, 1, 10, 10), np.float32))  # a causal mask, by this name
    described = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_head": 4, "n_embd": width}
    return write_model(folder, arrays, described if config else None)


def grouped_query(folder):
    """Write attention whose heads share keys and values, in one matrix with the queries, and a fused gated layer."""
    width, heads, shared, head = WIDTH, 4, 2, 4
    block = "model.layers.0"
    shapes = {
        "model.embed_tokens.weight": (40, width),
        f"{block}.self_attn.qkv_proj.weight": ((heads + 2 * shared) * head, width),
        f"{block}.self_attn.o_proj.weight": (width, width),
        f"{block}.mlp.gate_up_proj.weight": (2 * 24, width),
        f"{block}.mlp.down_proj.weight": (width, 24),
        "lm_head.weight": (40, width),
    }
    config = {
        "model_type": "phi3",
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "tie_word_embeddings": False,
    }
    return write_model(folder, random_arrays(shapes), config)


def mixture(folder):
    """Write the experts of a mixture as gpt-oss stacks them: inputs first, gate and up in alternating columns."""
    width, wide, experts = WIDTH, 20, 3
    mlp = "model.layers.0.mlp"
    shapes = {
        f"{mlp}.router.weight": (experts, width),
        f"{mlp}.router.bias": (experts,),
        f"{mlp}.experts.gate_up_proj": (experts, width, 2 * wide),
        f"{mlp}.experts.gate_up_proj_bias": (experts, 2 * wide),
        f"{mlp}.experts.down_proj": (experts, wide, width),
        f"{mlp}.experts.down_proj_bias": (experts, width),
    }
    return write_model(folder, random_arrays(shapes), {"model_type": "gpt_oss", "hidden_size": width})


def adapter(folder):
    """Write an adapter of PEFT: two low-rank factors for each layer."""
    shapes = {}
    for layer in ("q_proj", "v_proj"):
        name = f"base_model.model.model.layers.0.self_attn.{layer}"
        shapes |= {f"{name}.lora_A.weight": (4, WIDTH), f"{name}.lora_B.weight": (WIDTH, 4)}
    folder = write_model(folder, random_arrays(shapes), name="adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    return folder


def torch_model():
    """Return a small net with a recurrent layer, attention and a convolution, from a seed."""
    torch.manual_seed(SEED)
    parts = {
        "stem": nn.Conv2d(3, 8, 3, bias=False),
        "norm": nn.BatchNorm2d(8),
        "depthwise": nn.Conv2d(8, 8, 3, groups=8),
        "up": nn.ConvTranspose2d(8, 4, 2, stride=2),
        "rnn": nn.LSTM(6, 4, num_layers=2, bidirectional=True, proj_size=3),
        "gru": nn.GRU(5, 4),
        "vanilla": nn.RNN(5, 4),
        "cell": nn.GRUCell(5, 4),
        "attention": nn.MultiheadAttention(8, 2),
        "mixed": nn.MultiheadAttention(8, 2, kdim=6, vdim=5),
        "embedding": nn.Embedding(11, 8),
        "head": nn.Linear(8, 3),
    }
    return nn.ModuleDict(parts)


def optimiser(folder):
    """Write a training checkpoint of torch: weights under a customary key, beside the state of Adam."""
    folder.mkdir(parents=True, exist_ok=True)
    model = torch_model()
    adam = torch.optim.Adam(model["head"].parameters())
    model["head"](torch.ones(2, 8)).sum().backward()
    adam.step()
    content = {"epoch": 3, "model_state_dict": model.state_dict(), "optimizer_state_dict": adam.state_dict()}
    torch.save(content, folder / "checkpoint.pt")
    return folder / "checkpoint.pt"


def legacy(folder):
    """Write a state dict in the format of torch before 1.6."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(torch_model().state_dict(), folder / "weights.pth", _use_new_zipfile_serialization=False)
    return folder / "weights.pth"


FIXTURES = (sharded, symlinked_cache, gpt2, grouped_query, mixture, adapter, optimiser, legacy)

if __name__ == "__main__":
    for write in FIXTURES:
        write(Path(sys.argv[1]) / write.__name__)
