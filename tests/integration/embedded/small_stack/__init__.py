"""``lockstepd up`` over the real servers with small parts: an API that is ready at once, a worker that only waits."""
