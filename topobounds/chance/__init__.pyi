from . import convolution, layer, magnitudes, orders, overlap, persistence, price, scales

__all__ = ["convolution", "layer", "magnitudes", "orders", "overlap", "persistence", "price", "scales"]
