"""pyserial URL handlers, known once :mod:`bitloop` is imported. They import the standard library and pyserial only."""
