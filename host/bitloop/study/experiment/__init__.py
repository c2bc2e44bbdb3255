"""Experiments that a file declares: networks, sweeps, searches, comparisons, one opening of the test set, devices."""
