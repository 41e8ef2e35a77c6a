"""The `distox` command."""
