"""Learning from a frozen encoder: its vectors of texts and images, and the n-gram table that starts from them."""
