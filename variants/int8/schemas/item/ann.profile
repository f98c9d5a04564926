rank-profile ann {
  # The graph of int8 finds 200 (see the query profile), the paged float vectors order the best 100 of each node.
  function coarse() { # 0.85; cosine but for the rounding of cells
    expression: closeness(field, embedding_int8)
  }
  function similarity() { # cosine of query and item: 0.83; reads a page of disk for an item that is not cached
    expression: sum(query(q) * attribute(embedding))
  }
  first-phase {
    expression: coarse
  }
  second-phase {
    expression: 10 + similarity
    rerank-count: 100
  }
  match-features: similarity coarse
}
