"""The tests. They go through the public door: the SDK or the command, to a real backend."""
