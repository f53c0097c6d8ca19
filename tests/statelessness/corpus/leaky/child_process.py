"""A file that a child process writes."""

import subprocess
from pathlib import Path

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"


@app.post("/job")
def job():
    subprocess.run("echo x >> jobs.txt", shell=True, check=True)
    return "", 202


@app.get("/jobs")
def jobs():
    path = Path("jobs.txt")
    return str(len(path.read_text().split()) if path.exists() else 0)


SCRIPT = [("POST", "/job"), ("GET", "/jobs")]
SUSPECT = "jobs.txt"
