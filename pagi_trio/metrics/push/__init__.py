"""Where snapshots are sent, and who sends them; nothing here needs prometheus_client."""
