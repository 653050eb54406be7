"""Where snapshots go: one module per system that reads them."""
