"""What benchmarks of several parts share: the command line, tables, and goals held against figures."""
