"""What a training takes from public models: a teacher's vectors, the n-gram table that starts from them, and the
weights that the BERTs start from.
"""
