"""A run on a device: streaming, journal, comparison with the host simulation, and the metrics of all that."""
