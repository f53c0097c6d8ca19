"""What spans add to a call: ours, and those of opentelemetry-instrumentation-httpx.

    python -m routing_costs.tracing MODE ROUNDS SLICE     prints the figures of one mode as JSON

Each mode in a process of its own, as a program has one SDK, and has it for good.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path

import httpx
from opentelemetry import metrics, trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from routing_costs.layers import SETTINGS, URL, untraced
from routing_costs.measure import Effort, Figures, Work, interleaved, least, tell
from routing_costs.nothing import answered_at_once
from unsticky import Pools

MODES = ("no SDK", "unsampled", "batch", "batch and metrics")
OURS, PEER = "unsticky", "opentelemetry-instrumentation-httpx"


class _Nowhere(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def run(effort: Effort, figures: Figures) -> None:
    figures["tracing"] = {}
    for mode in MODES:
        tell(f"tracing: {mode}")
        command = [sys.executable, "-m", "routing_costs.tracing", mode, str(effort.rounds), str(effort.slice)]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True, check=True)
        figures["tracing"] |= json.loads(done.stdout)


def _configure(mode: str) -> None:
    if mode == "no SDK":
        return
    provider = TracerProvider(sampler=ALWAYS_OFF if mode == "unsampled" else ALWAYS_ON, shutdown_on_exit=False)
    if mode.startswith("batch"):
        provider.add_span_processor(BatchSpanProcessor(_Nowhere()))
    trace.set_tracer_provider(provider)
    if mode.endswith("metrics"):
        metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False))


async def _measured(mode: str, effort: Effort) -> dict[str, float]:
    with answered_at_once(), Pools.from_settings(SETTINGS) as pools:
        async with httpx.AsyncClient() as bare, httpx.AsyncClient() as instrumented, pools.async_client() as pooled:
            HTTPXClientInstrumentor.instrument_client(instrumented)
            works = [
                Work("bare", _calls(bare)),
                Work("instrumented", _calls(instrumented)),
                Work("untraced", _calls(pooled, traced=False)),
                Work("pooled", _calls(pooled)),
            ]
            best = least(await interleaved(works, effort, "tracing"))
    return {
        f"{OURS}, {mode}": best["pooled"] - best["untraced"],
        f"{PEER}, {mode}": best["instrumented"] - best["bare"],
    }


def _calls(client: httpx.AsyncClient, *, traced: bool = True) -> Callable[[int], Awaitable[None]]:
    async def run(amount: int) -> None:
        with nullcontext() if traced else untraced():
            for _ in range(amount):
                await client.get(URL)

    return run


def main() -> None:
    mode, rounds, seconds = sys.argv[1:]
    _configure(mode)
    print(json.dumps(asyncio.run(_measured(mode, Effort(int(rounds), float(seconds))))))


if __name__ == "__main__":
    main()
