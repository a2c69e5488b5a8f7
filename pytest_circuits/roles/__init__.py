"""What one head does: a module for each role, with its formula and paper."""
