"""Which endpoint, and whether again. Pure: no I/O, no threads, no sleeping; time and randomness are given.

The whole of it, as the drivers see it::

    pool = Pool(name, options, clock, random.Random(), lock=threading.Lock())   # routing/pool.py
    flow = route(pool, Call("GET", deadline=clock.monotonic() + 2.0))           # routing/flow.py
    with pool.lock:
        command = next(flow)                    # Send | Wait | Read, or StopIteration(outcome), or a RoutingError
    ...                                         # send, or wait, without the lock
    with pool.lock:
        command = flow.send(outcome)            # of any attempt in flight; None: the time that the flow gave passed
    for event in pool.drain_events(): ...       # routing/events.py: frozen values; needs no lock

What a driver does:

- holds `pool.lock` around `next`, `send`, `throw` and `close` of the flow, and around `replace`, `report_health` and
  `snapshot`; never across I/O. The pool itself takes no lock. `drain_events`, `Lease.release` and `Lease.body_failed`
  need none;
- after an Outcome with a response, when the next thing is a command or a RoutingError, closes that response first;
- owns the lease of the Outcome that `route` returns, if it has a response: `release()` when the body is closed or
  dropped, `body_failed()` (which releases too) when it broke off. All other leases are released by the flow;
- closes the flow when the caller goes away: that releases the leases of the attempts under way;
- may ignore `Send.wait`, and wait for each attempt before it asks again: then nothing is hedged. Else attempts that are
  still in flight when the flow ends, or yields `Read`, are cancelled, and what comes of them is closed: their leases
  are given back by then;
- after `Read` has the body in its hands, whole or not, or closes it and says how it failed;
- reports Failure.CONNECT only when the request's body iterator is untouched, because such an attempt is repeated
  even for bodies that can't be replayed; CANCELLED and LOCAL say nothing about the endpoint;
- sets `__cause__` of a RoutingError that comes out of the flow, if it likes, to the last attempt's exception.

`route` returns the last Outcome when that has a response (even a 503), was CANCELLED or LOCAL, or was the only
attempt; the driver then re-raises `outcome.error`. It raises AttemptsFailed when several attempts were made and the
last has no response, CallTimeout when the call's deadline passed, NoHealthyEndpoint when the pool has none that may be
used, PoolOverflow when its limits are reached.

Hash keys: `keys = parse_hash_keys(options.hash.on)` once, then `call_key(keys, source)` per call (routing/hashing.py).
Health checks: `pool.watched()` (a tuple of Endpoint), `pool.report_health(endpoint, CheckResult)` per result.
Discovery: `pool.replace(frozenset_of_endpoints)`; state follows the URL. Draining: `pool.drain(url_or_address)`.
Status for people: `pool.snapshot()`, and `explain(pool)` (routing/explain.py): who gets calls, how many, or why not.

How a set of endpoints becomes a pick, module by module: health.py and outliers.py (ejection.py) say who is fit,
eligibility.py ranks them in tiers (priority.py, locality.py, subset.py), limits.py knows who has a place, and picker.py
picks. All but the last two happens when something changed, not per call.

Before that rules.py may send a call to another pool, or to a part of its own (preference.py), by facts of which
error_rate.py keeps one. What was decided is counted in tally.py; call_failed.py is what handlers of failures get.
"""
