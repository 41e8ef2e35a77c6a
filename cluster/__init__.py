"""What runs when and where, and how it went: coordinator, store, launching, embedded stack."""
