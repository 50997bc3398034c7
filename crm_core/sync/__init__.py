"""Sync: deciding is pure (`merge`), the rest is the order of I/O. Knows no vendor, no HTTP and no Azure."""
