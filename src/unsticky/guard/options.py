"""What can be set about the guard, which looks for state that stays in the process. Frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta


@dataclass(frozen=True, slots=True, kw_only=True)
class StatelessnessOptions:
    """What the guard does while the app serves, and what is local on purpose."""

    guard: Annotated[
        Literal["off", "report", "enforce"],
        Meta(
            description="report: look for variables that requests change and for files that they write; enforce: "
            "refuse those files, and changes of the app's configuration, too."
        ),
    ] = "off"
    packages: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        Meta(description="Whose modules' variables are looked at. Unset: the packages of the app and of its views."),
    ] = ()
    warm_up: Annotated[int, Meta(ge=0, description="Requests before the first look: they may fill caches.")] = 64
    sweep_every: Annotated[int, Meta(gt=0, description="Requests from one look at all variables to the next.")] = 64
    shared: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        Meta(description="Files and directories that all replicas see, such as a network disk."),
    ] = ()
    allow: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        Meta(description='Patterns of variables that are local on purpose, such as "shop.metrics:*".'),
    ] = ()
