"""Measures this service beside a textbook service and a ceiling; `scripts/bench` runs it."""
