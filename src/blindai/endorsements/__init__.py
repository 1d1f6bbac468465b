"""Fetches and keeps what vendors publish about their hardware (docs/spec/endorsements.md)."""
