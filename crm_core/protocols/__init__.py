"""How remote systems speak, without knowing any vendor: guarded HTTP, tokens, the REST client of one connection."""
