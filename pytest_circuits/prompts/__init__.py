"""Templates and files become clean and corrupt prompt pairs, and pairs become tokens of one tokenizer."""
