"""The guard: looks, while the app serves, for state that stays in this process, and says which variable and who.

- `watch.py` what one app's requests change; `audit.py` what they write: one hook of the interpreter for all apps;
- `frozen.py` configuration that refuses changes; `packages.py` whose variables are looked at;
- `hosts.py` the guard around a Flask, WSGI or ASGI app. What counts as a change is decided in `unsticky.guard`.
"""
