"""What the line is worth: its share of payload, images a second, goodput under noise, and survival of faults."""
