"""Which engine does the work: numpy, or compiled kernels."""

import os
import sys


def kernels_disabled() -> bool:
    """Return whether numba was told not to compile, by ``NUMBA_DISABLE_JIT`` or ``numba.config``.

    Numpy then does all that it can: some kernels use instructions that Python does not have, and the others would be
    a thousand times slower.

    Examples
    --------
    >>> kernels_disabled()
    False
    """
    if "numba" in sys.modules:
        return bool(sys.modules["numba"].config.DISABLE_JIT)
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
