"""A day of the blog: two users, three posts, and what each may not do."""

ANN, BOB = {"username": "ann", "password": "tea"}, {"username": "bob", "password": "milk"}
SCRIPT = [
    ("GET", "/"),
    ("POST", "/auth/register", {"form": ANN}),
    ("POST", "/auth/register", {"form": ANN}),
    ("POST", "/auth/login", {"form": {**ANN, "password": "coffee"}}),
    ("POST", "/auth/login", {"form": ANN}),
    ("POST", "/create", {"form": {"title": "First", "body": "Hello."}}),
    ("POST", "/create", {"form": {"title": "", "body": "Untitled."}}),
    ("GET", "/"),
    ("POST", "/1/update", {"form": {"title": "First, again", "body": "Hello, all."}}),
    ("GET", "/1/update"),
    ("GET", "/auth/logout"),
    ("GET", "/create"),
    ("POST", "/auth/register", {"form": BOB}),
    ("POST", "/auth/login", {"form": BOB}),
    ("POST", "/1/delete"),
    ("POST", "/auth/login", {"form": ANN}),
    ("POST", "/1/delete"),
    ("GET", "/"),
]
