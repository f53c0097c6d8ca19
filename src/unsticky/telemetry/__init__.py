"""What others can see of us: one file per kind of telemetry."""
