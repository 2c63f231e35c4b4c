"""Zeroth-order topology of neural network layers, and what magnitude pruning keeps of it.

The public names are listed in ``__init__.pyi`` and resolved when first used, so that ``import topobounds`` costs
nothing and a command loads only what it needs.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
