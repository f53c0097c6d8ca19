"""Which endpoint, and whether again. Pure: no I/O, no threads, no sleeping; time and randomness are given."""
