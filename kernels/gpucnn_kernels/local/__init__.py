"""Convolution without sharing, forward and both gradients: one file for each way to do it."""
