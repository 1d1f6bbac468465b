"""The channel: attested keysets, sealed messages and sessions, as value-in value-out code for both ends (no I/O)."""
