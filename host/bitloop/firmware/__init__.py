"""The firmware of every board: find, build, flash; read what the linker made of it."""
