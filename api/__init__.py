"""What a client can read and ask: HTTP, client, command line."""
