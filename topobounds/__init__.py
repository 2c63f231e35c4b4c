"""Zeroth-order topology of neural network layers, and what magnitude pruning keeps of it.

Supported is what ``__init__.pyi`` lists: these names, and the folders and files named there as places to find the rest.
All other names, in whatever module, are internal and may change without notice. Each is resolved when it is first used,
so that ``import topobounds`` costs nothing and a command loads only what it needs.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
