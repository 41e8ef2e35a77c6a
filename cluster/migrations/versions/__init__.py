"""One module for each change of the schema, chained by ``down_revision``; a released one is never edited."""
