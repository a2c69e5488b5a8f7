"""What a team expects of a circuit: component names, the schema of a spec file, and the loader with file:line:col."""
