"""The line shaper: a serial line's rate, delay and faults, below the protocol and in front of any port."""
