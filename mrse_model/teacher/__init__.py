"""A public encoder teaches MRSE what is known of language, or of texts and images (Hinton et al. 2015; for retrieval:
Reimers & Gurevych 2020). It is needed in training alone: neither feeding nor serving runs it.
"""
