"""The spec schema: frozen pydantic models, no torch and no ray."""
