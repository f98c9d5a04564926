"""Parquet in, training examples out; without torch.

contract: ItemsFile(path, title="title").check(pictures=False); .batches(size, images=False, columns=(), start=0)
          read_catalogue(path, title="title") → Catalogue; SearchesFile(path).batches(size) → SearchBatch
          read_judgments(path, catalogue, unknown="error") → Judgments
sample:   write_sample(folder, items=2400, users=400, searches=6000, seed=7) → Sample(items, searches, judgments, …)
convert:  convert_events(events, searches), convert_ubi(queries, events, searches) → Converted
examples: write_examples(folder, catalogue, searches=, judgments=, settings=, progress=) → ExampleSummary
example_files: EXAMPLE_SCHEMA, VALIDATION_SCHEMA, ExampleSummary.load(folder), item_queries(folder, items)
images:   decode_image(data, file=None, row=None) → RGB picture
table:    Table(path), the checked Parquet reader below them
"""
