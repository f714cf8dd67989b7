"""The storybook world: a procedural, captioned picture world and the recipe that trains the bundled base model on it."""
