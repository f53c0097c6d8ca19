"""Work in an executor's threads."""

from concurrent.futures import ThreadPoolExecutor

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"

pool = ThreadPoolExecutor(2)


@app.get("/sum")
def total():
    return str(sum(pool.map(lambda number: number * number, range(10))))


SCRIPT = [("GET", "/sum"), ("GET", "/sum")]
