"""Which parts matter, and through what: exact patching, its gradient approximations, direct effects, paths."""
