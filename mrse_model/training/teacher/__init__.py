"""Learning from a frozen sentence encoder: its vectors of the texts, and the n-gram table that starts from them."""
