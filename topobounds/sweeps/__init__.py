"""Many questions over one engine: a plan of grids, the rows they end in, and how they get there."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
