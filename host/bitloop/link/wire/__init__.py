"""What crosses the line: frames, and the messages in them (docs/protocol.md)."""
