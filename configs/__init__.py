"""What was asked for: spec schema, loading, settings."""
