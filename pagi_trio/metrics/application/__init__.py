"""The application's own metrics: how they are defined and counted, kept, and made one over several processes.

`pagi_trio.metrics.facade` is what applications see of it.
"""
