"""Chaos: real endpoints that misbehave at random, calls of every kind, and nothing is left of them.

    python tests/chaos.py --seconds 300 --seed 7

Three endpoints, two of which are reset, dripping, stalling, talking nonsense, killed and stopped, while threads or
event loops call, drop, and cancel. As long as the third is well no idempotent call may fail, nothing that is not
idempotent may be sent twice, every error is ours or the library's, and afterwards there is no lease, connection, task,
thread or file left. The seed decides what is done; the machine decides when.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from support.chaos import Ran, run
from support.chaos_endpoint import fleet
from support.pools import LIBRARIES

# The client, on event loops or in threads, hedging or not.
CLIENTS: list[tuple[str, bool, bool]] = [
    *((client, False, False) for client in ("httpx", "httpx2", "requests")),
    *((client, True, hedged) for client in LIBRARIES for hedged in (False, True)),
]


def explained(ran: Ran, seed: str, at_most: int = 10) -> str:
    """What is wrong, with how to run it again."""
    again = f"python tests/chaos.py --client {ran.ledger.client!r} --seed {seed!r}"
    head = f"{len(ran.wrong)} wrong of {ran.ledger}; again: {again}"
    more = [f"... {len(ran.wrong) - at_most} more"] if len(ran.wrong) > at_most else []
    return "\n".join([head, *ran.wrong[:at_most], *more, f"faults: {'; '.join(ran.faults[-at_most:])}"])


def main() -> int:
    options = _options()
    end, number, wrong = time.monotonic() + options.seconds, 0, 0
    clients = [one for one in CLIENTS if options.client in ("all", one[0])]
    with tempfile.TemporaryDirectory() as folder, fleet(3, Path(folder) / "sent") as three:
        while time.monotonic() < end:
            client, loops, hedged = clients[number % len(clients)]
            number, seed = number + 1, f"{options.seed}" if number < len(clients) else f"{options.seed} {number}"
            ran = run(client, three, seed, options.each, loops=loops, hedged=hedged)
            how = f"{client}, {'event loops' if loops else 'threads'}{', hedged' if hedged else ''}"
            print(f"{how}, seed {seed!r}: {ran.ledger}, {len(ran.faults)} faults, {len(ran.wrong)} wrong", flush=True)
            if ran.wrong:
                print(explained(ran, seed), flush=True)
            wrong += len(ran.wrong)
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="in all; default 300")
    parser.add_argument("--each", type=float, default=10.0, help="seconds of one run; default 10")
    parser.add_argument("--client", choices=[*LIBRARIES, "requests", "all"], default="all")
    parser.add_argument("--seed", default=str(random.randrange(10**6)), help="default: another one each time")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
