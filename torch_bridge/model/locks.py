"""One thread at a time for the models of this process."""

import threading

MODEL_LOCK = threading.RLock()
"""Held while a model is called, read or pruned, whose modes, hooks and gradients are changed for as long: a second
thread waits. The state of the random generators is put back afterwards too, and there is one for all models."""
