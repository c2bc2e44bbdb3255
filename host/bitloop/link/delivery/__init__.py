"""How bytes get there on a line that loses some: window, stream, what is missing, how long frames are, when to ask."""
