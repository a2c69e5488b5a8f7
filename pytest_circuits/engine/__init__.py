"""A model run with parts replaced: which value, where, over which prompts."""
