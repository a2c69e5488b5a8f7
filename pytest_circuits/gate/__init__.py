"""Numbers become verdicts: estimates, effects, statements, decisions. Pure; closed forms only."""
