"""The specs of this folder are material of its tests: what checkpoint they are about is known to a test alone."""

collect_ignore_glob = ["*.circuit.yaml"]
