"""Names for the arguments that several functions of torch_bridge take."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Literal

Amount = int | float | Fraction  # weights to prune, or the share of the survivors
Amounts = Amount | Mapping[str, Amount]  # of all tensors, or of each by name
Convention = Literal["flattened", "shared"]  # the graph that a convolution is read as
