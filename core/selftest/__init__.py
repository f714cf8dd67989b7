"""The self test: a synthetic tenant goes once through everything, and leaves nothing behind."""
