"""What all jobs share: ledger, guard, artifacts, dead letters, proof. No Ray except where a file says so."""
