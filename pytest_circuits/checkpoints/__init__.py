"""From a checkpoint's name to a directory that is safe to load, and from there to a bound, self-checked model."""
