"""Parquet in, training examples out; without torch. Bad input raises InputError with file, row and field.

contract      ItemsFile(path, *, title="title"): .rows .image_column .extra_columns
                  .check(*, images=False) -> int
                  .batches(size=1024, *, images=False, columns=(), start=0) -> ItemBatch
              ItemBatch: first_row ids titles categories images extra
              read_catalogue(path, *, title="title") -> Catalogue: ids titles categories row{id: row}
              SearchesFile(path): .rows .batches(size=4096, *, start=0) -> SearchBatch
              SearchBatch: first_row search_ids user_ids timestamps queries shown clicked carted ordered
              read_judgments(path, catalogue, *, unknown="error" | "skip") -> Judgments:
                  queries, query[n], item[n], grade[n], skipped, .groups() -> (query, item rows, grades)
images        decode_image(data, *, file=None, row=None, field="image") -> RGB image
sample        write_sample(folder, items=2400, users=400, searches=6000, seed=7) -> Sample:
                  items searches judgments judgments_val (paths), counts
convert       convert_events(events, searches) -> Converted; convert_ubi(queries, events, searches) -> Converted
examples      write_examples(folder, catalogue, *, searches=None, judgments=None, settings=None, progress=…)
                  -> ExampleSummary
              ExampleSettings(history_length=20, item_queries=8, validation_from=None, validation_fraction=0.1,
                  positive_grade=2, pseudo_queries=None, spam=SpamRule(), shard_rows=65536, seed=7)
example_files EXAMPLE_SCHEMA, VALIDATION_SCHEMA, KINDS; ExampleSummary.load(folder) .lines() .rows;
                  item_queries(folder, items) -> list[list[str]]
history       Histories(length): .before(user_id, time, *, search_id, targets) -> list[Event]; .add(user_id, events)
search_log    SpamRule(searches_per_hour=60, click_share=0.8, min_searches=20, min_shown=5), query_key(query)
"""
