"""A temporary file that is gone when the request is."""

import tempfile

from flask import Flask, request

app = Flask(__name__)
app.secret_key = "the same for all"


@app.post("/size")
def size():
    with tempfile.NamedTemporaryFile() as file:
        file.write(request.get_data())
        return str(file.tell())


SCRIPT = [("POST", "/size", {"body": "hello"}), ("POST", "/size", {"body": "hello"})]
