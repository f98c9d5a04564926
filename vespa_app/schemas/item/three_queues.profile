rank-profile three_queues inherits base {
  # The paper's three recall queues in one query, by label: q2i (query vector), i2i (clicked items), image (their images).
  # itemRawScore is the closeness of what a queue found, and 0 for the rest; closeness(label, …) would be computed for every hit, found by
  # that queue or not. An item's score is its best queue.

  inputs {
    query(i2i_weight) double: 0.9   # a clicked item's neighbour counts a little less than the query's
    query(image_weight) double: 0.8
  }
  function from_query() { # 0.86
    expression: itemRawScore(q2i)
  }
  function from_clicks() { # 0.91
    expression: query(i2i_weight) * itemRawScore(i2i)
  }
  function from_images() { # 0.74
    expression: query(image_weight) * itemRawScore(image)
  }
  first-phase {
    expression: max(from_query, max(from_clicks, from_images))
  }
  match-features: from_query from_clicks from_images
}
