"""Tensors, files and callbacks: the library that learns concepts and renders pictures. It knows no queue or store."""
