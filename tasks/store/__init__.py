"""Data at rest: nodes, fingerprints, manifests, shards, locks, and the exception tree."""
