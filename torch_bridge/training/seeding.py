"""Random numbers of an experiment: a seed for each purpose, and the global generators seeded for a while."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from torch_bridge._torch import torch

_STREAMS = ("init", "order", "split", "pruning", "torch")


def generator_seed(seed: int, stream: str, replicate: int = 0, level: int = 0, part: int = 0) -> np.random.SeedSequence:
    """Return the seed of one stream of random numbers; no two streams, replicates, levels or parts share theirs."""
    return np.random.SeedSequence([seed, _STREAMS.index(stream), replicate, level, part])


def torch_seed(seed: int, stream: str, replicate: int = 0, level: int = 0) -> int:
    """Return the same as an integer that torch takes."""
    return int(generator_seed(seed, stream, replicate, level).generate_state(1, np.uint64)[0])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, numpy and Python for the length of a ``with`` block, and put them back."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 -- a caller's code may draw from them
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
