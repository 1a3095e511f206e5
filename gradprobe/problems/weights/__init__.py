"""Weights from files of others: what a file is, reading it without running it, its state dict, fitting names."""
