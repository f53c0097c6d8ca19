"""What a session is, and what must be written. Pure: no I/O, no threads; time is given; imports floor 0 only."""
