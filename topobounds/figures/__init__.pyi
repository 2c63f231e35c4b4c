from . import publish, record

__all__ = ["publish", "record"]
