"""Between host and device: frames, messages, transports, sessions. Imports nothing, so that URL handlers stay light."""
