"""How busy this process is: what the kernel says, what the middlewares count, and what the app adds."""

from .meter import Meter

__all__ = ["Meter"]
