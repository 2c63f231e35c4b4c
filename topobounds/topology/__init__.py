"""What the weights of a layer say: its filtration, spanning forest, persistence diagram and neural persistence."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
