"""The store's schema, change by change; each change is a file of ``versions``."""

HEAD = "0003"
"""The newest revision: what this code reads and writes."""
