"""Where snapshots go: one module per system that reads them."""

# Before any module here is begun: a worker's hook on this import needs one of them whole.
import prometheus_client  # noqa: F401 - see above
