"""What MRSE is held against: BM25, FastText mean, one Transformer, DSSM-α, MiniLM untrained, a plain two-tower."""
