"""What the demo shows: progress and events, one trace as a tree, and the table at the end."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.tree import Tree

from .collector import Collector, Span
from .shoppers import Counts


class Screen:
    """Events scroll by, the progress bar stays below them. On something that is no terminal, lines alone."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.progress = Progress(
            TextColumn("  requests"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=self.console
        )

    def say(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style or None)

    def trace(self, spans: list[Span]) -> None:
        """One trace, attempts with where they went and how they ended."""
        known = {span.id for span in spans}
        [root] = [span for span in spans if span.parent not in known]
        tree = Tree(_line(root))
        _grow(tree, root, spans)
        self.console.print(tree)

    def table(self, shops: Mapping[str, Counts], attempts: Mapping[str, str]) -> None:
        """The numbers, one column per shop."""
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 4, 0, 0))
        table.add_column("")
        for name in shops:
            table.add_column(name, justify="right")
        rows = {
            "requests": [str(counts.requests) for counts in shops.values()],
            "failures": [str(len(counts.failures)) for counts in shops.values()],
            "sessions": [str(len(counts.replicas)) for counts in shops.values()],
            "sessions lost": [str(len(counts.lost)) for counts in shops.values()],
            "replicas used per session": [_spread(counts) for counts in shops.values()],
            "re-sent by the load balancer": [str(counts.resent) for counts in shops.values()],
            "attempts per upstream call": [attempts[name] for name in shops],
        }
        for label, values in rows.items():
            table.add_row(label, *values)
        self.console.print(table)


def attempts_per_call(collector: Collector, service: str) -> tuple[float, int]:
    """Mean and maximum over the calls to the catalog, from the spans of the replicas whose name begins so."""
    attempts = [span for span in collector.spans.copy() if span.is_attempt and span.service.startswith(service)]
    calls = sum(span.resend == 0 for span in attempts)
    return len(attempts) / max(1, calls), max((span.resend + 1 for span in attempts), default=0)


def _spread(counts: Counts) -> str:
    used = [len(replicas) for replicas in counts.replicas.values()] or [0]
    return f"{min(used)} to {max(used)}" if min(used) != max(used) else str(max(used))


def _grow(tree: Tree, parent: Span, spans: list[Span]) -> None:
    for span in spans:
        if span.parent == parent.id:
            _grow(tree.add(_line(span)), span, spans)


def _line(span: Span) -> str:
    text = f"{escape(_what(span))}  [dim]{span.milliseconds:.1f} ms[/dim]"
    return f"[red]{text}[/red]" if "error.type" in span.attributes else text


def _what(span: Span) -> str:
    told = span.attributes
    if not span.is_attempt:
        return f"{span.name} {told.get('url.path', '')}, served by {span.service}"
    peer = f"{told.get('network.peer.address')}:{told.get('network.peer.port')}"
    ended = told.get("http.response.status_code") or str(told.get("error.type", "")).rpartition(".")[2]
    return f"{span.name} pool {told['unsticky.pool']}, attempt {span.resend + 1} to {peer}: {ended}"
