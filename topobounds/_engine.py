"""Which engine does the work: numpy, or compiled kernels that take a second to load but are faster from then on."""

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
    config = getattr(sys.modules.get("numba"), "config", None)  # none yet while another thread is importing it
    disabled = getattr(config, "DISABLE_JIT", None)
    if disabled is not None:
        return bool(disabled)
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


class NumpyBudget:
    """Chooses numpy until the kernels are loaded or numpy has treated a number of cells.

    Many small calls in one process then never take more than twice the time of the better of the two engines.

    Parameters
    ----------
    kernels : str
        The module that loads the kernels; once it is imported, they cost nothing more to load.
    cells : int
        Cells that numpy treats in about the time that loading takes. What was treated before counts.
    loaded_cells : int
        Cells that numpy treats about as fast as kernels that are loaded already.

    Examples
    --------
    >>> budget = NumpyBudget("kernels_that_nobody_loaded", cells=100)
    >>> budget.affords(60), budget.affords(60), budget.affords(40)
    (True, False, True)
    """

    def __init__(self, kernels: str, cells: int, loaded_cells: int = 0) -> None:
        self.kernels = kernels
        self.cells = cells
        self.loaded_cells = loaded_cells
        self.spent = 0

    def affords(self, cells: int) -> bool:
        """Return whether numpy is to treat so many cells, and count them if it is."""
        if kernels_disabled():
            return True
        if self.kernels in sys.modules:
            return cells <= self.loaded_cells
        if self.spent + cells > self.cells:
            return False
        self.spent += cells
        return True
