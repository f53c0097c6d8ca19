"""What `demo.py` is made of: servers to start and kill, shoppers, a collector of traces, and the screen."""
