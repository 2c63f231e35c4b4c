"""Names for the arrays that more than one room hands on."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # of any type
Keys = NDArray[Any]  # unsigned integers that sort as |w| does
Mask = NDArray[np.bool_]
MaskBytes = NDArray[np.uint8]  # a mask, seen as bytes
FloatArray = NDArray[np.float64]
Integers = NDArray[np.int64]
Vertices = NDArray[np.uint32]
Cells = NDArray[np.uint64]  # ``row << 32 | column``, or one of its codes: see topobounds.topology.key_matrix
Words = NDArray[np.uint64]  # random ones
Interval = tuple[float, float]
Progress = Callable[[int, int], object]  # called with how much is done, and of how much
NamedProgress = Callable[[int, int, str], object]  # and of what
StepProgress = Callable[[int, str], None]  # called with how many steps of a piece of work are done, and a message
Zeros = Literal["absent", "edge"]  # what a weight of zero is
