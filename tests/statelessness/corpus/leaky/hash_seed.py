"""Shards by hash(), which each process salts anew."""

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"


@app.get("/shard/<user>")
def shard(user):
    return str(hash(user) % 1000)


SCRIPT = [("GET", "/shard/ann"), ("GET", "/shard/ann"), ("GET", "/shard/bob")]
SUSPECT = ""
