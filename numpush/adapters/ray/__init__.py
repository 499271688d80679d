"""Ray's tasks and actors hand each other shared objects as handles: `install`, which is what imports Ray."""

from .passing import install

__all__ = ["install"]
