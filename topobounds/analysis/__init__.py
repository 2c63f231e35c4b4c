"""What the shapes imply, what the weights say and what chance gives, side by side.

These modules hold and compare; the numbers are computed on the floors below.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
