"""What benchmarks/simulate.py is made of: a world in virtual time around the real pools, pickers and flow."""
