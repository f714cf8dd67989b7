"""Distribution matching distillation: a student that draws in one step, or a few, what its teacher draws in fifty."""
