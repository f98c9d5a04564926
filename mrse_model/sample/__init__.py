"""The generated sample catalogue: items, images, searches and judgments for tests and demos."""
