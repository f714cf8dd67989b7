"""What only a GPU can do in reasonable time: one resumable script each, run in calls of under ten minutes."""
