"""How a stream of tasks survives failures: queue, leases, workers, source, sink."""
