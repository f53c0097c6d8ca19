"""Does state stay behind in a replica? Found out by replay, and explained by a look into the process.

    unsticky check shop:app --script flows.py

The same requests are sent over the same shared store again and again, and only the routing differs: to one replica (the
control), to a fresh one for each request (*amnesia*), to all of them (*broadcast*). A response that changes with the
routing depends on something that a replica kept to itself.

- `script.py` the requests; `schedules.py` who gets which; `oracle.py` what counts as a change: pure.
- `running.py` one request, inside of a replica; `replica.py` the process it lives in; `disks.py` its private files.
- `fleet.py` all replicas, from outside; `check.py` the whole of it; `confirming.py` is it certain?
- `report.py` what a person reads.
- `walk.py` the values that a process holds, by name: who is the suspect? `ablation.py` puts it back: was it that one?
"""
