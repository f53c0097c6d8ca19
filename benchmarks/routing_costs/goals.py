"""What was promised (issue "Routing", Speed)."""

from __future__ import annotations

from collections.abc import Callable

from reporting.goals import Goal

from routing_costs import layers, sidecars, tracing, wires
from routing_costs.measure import Figures


def _value(part: str, name: str) -> Callable[[Figures], float]:
    return lambda figures: figures[part][name]


def _ratio(part: str, ours: str, peer: str) -> Callable[[Figures], float]:
    return lambda figures: figures[part][ours] / figures[part][peer]


def _retry_layer(figures: Figures) -> float:
    return figures["layers"][layers.FLOW] - figures["layers"][layers.PICK]


def _growth(wire: str, numbers: tuple[int, ...], of: Callable[[int], str]) -> Callable[[Figures], float]:
    """The dearest beside the first."""

    def value(figures: Figures) -> float:
        found = [figures["flat"][f"{wire}, {of(number)}"] for number in numbers]
        return max(found) / found[0]

    return value


def _tracing(mode: str, most: float) -> Goal[Figures]:
    ratio = _ratio("tracing", f"{tracing.OURS}, {mode}", f"{tracing.PEER}, {mode}")
    return Goal(f"spans, {mode}: beside {tracing.PEER}", "x", most, ratio)


def _sidecar(kind: str, through: str) -> Goal[Figures]:
    peer = through.format(kind)
    return Goal(f"p50, direct: beside {peer}", "x", 1.0, _ratio("sidecar", sidecars.DIRECT, peer))


GOALS = (
    Goal("pick, retry and budget, per call", " us", 8.0, _value("layers", layers.FLOW)),
    Goal("of which the retry layer: over the same without retries and budget", " us", 2.0, _retry_layer),
    Goal("counts for metrics, of a call with a retry", " us", 2.0, _value("layers", layers.COUNTS)),
    _tracing("no SDK", 0.1),
    _tracing("unsampled", 0.2),
    _tracing("batch", 0.3),
    Goal(f"64 calls at a time: beside {wires.PLAIN}", "x", 0.5, _ratio("calls", wires.DEFAULT, wires.PLAIN)),
    Goal(f'the same, wire = "aiohttp": beside {wires.PLAIN}', "x", 0.25, _ratio("calls", wires.AIOHTTP, wires.PLAIN)),
    Goal("1 to 256 calls at a time: the dearest beside 1", "x", 1.15, _growth("default", wires.NUMBERS, wires.calls)),
    Goal('the same, wire = "aiohttp"', "x", 1.15, _growth("aiohttp", wires.NUMBERS, wires.calls)),
    Goal("1 to 100 endpoints: the dearest beside 1", "x", 1.15, _growth("default", wires.SIZES, wires.endpoints)),
    Goal('the same, wire = "aiohttp"', "x", 1.15, _growth("aiohttp", wires.SIZES, wires.endpoints)),
    *(_sidecar(kind, sidecars.PLAIN) for kind in sidecars.PROXIES),
    *(_sidecar(kind, sidecars.OURS) for kind in sidecars.PROXIES),
    Goal("new connections per call in steady state", "", 0.0, _value("connects", wires.DEFAULT)),
    Goal('the same, wire = "aiohttp"', "", 0.0, _value("connects", wires.AIOHTTP)),
)
