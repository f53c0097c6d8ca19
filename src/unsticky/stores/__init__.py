"""Where sessions are kept: one file per kind of store, each imports its own driver at its top."""
