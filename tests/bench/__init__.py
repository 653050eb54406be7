"""Speed and memory of the server beside its peers: ``python -m tests.bench --help``."""
