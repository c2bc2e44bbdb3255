"""Searches: the smallest assignment of formats to tensors that loses no more accuracy than is put up with."""
