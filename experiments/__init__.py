"""Ready-made workloads and benchmark studies; no other room imports from here."""
