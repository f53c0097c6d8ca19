"""The guard's decisions: which variables changed, who changes them, and whether it is time to say so again. Pure."""
