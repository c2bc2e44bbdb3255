"""Long proofs: ``scripts/verify`` runs them whole, ``tests/proofs`` short versions of the same code."""
