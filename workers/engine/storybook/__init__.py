"""The storybook world: a procedural, captioned picture world, and the recipe of the base model trained on it."""
