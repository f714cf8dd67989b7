"""What runs beside the API: the supervisor, its handlers, maintenance loops, and the engine behind a process wall."""
