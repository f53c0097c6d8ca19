"""The parts of benchmarks/sessions.py: what a session costs per request, beside its peers."""
