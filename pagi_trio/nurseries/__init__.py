"""Everything that lives in time: one module per level of the tree, and what the levels share."""
