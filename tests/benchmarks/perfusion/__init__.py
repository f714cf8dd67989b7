"""The Pareto curve of Perfusion against its rivals, on a base where everything is known."""
