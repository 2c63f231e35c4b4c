"""Which weights to keep: masks by magnitude, by topology (T-IMP) and at random, and how many to keep in which round.

Every mask keeps an exact number of weights, by rank and never by a threshold: |w| descending, ties by flat index. It is
monotone: a weight that is pruned stays pruned. Weights that are zero without being pruned are kept last.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
