"""What the server counts, and how it is read: catalog, tallies, flush task, store, snapshots and the page."""
