"""Recorded sessions: the file, the transport that writes one, and the one that gives it back (docs/recording.md)."""
