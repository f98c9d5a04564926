rank-profile ann {
  # The graph of bits finds 1,000 (see the query profile), the paged float vectors order the best 300 of each node.
  function coarse() { # 1 / (1 + differing bits): 0.031
    expression: closeness(field, embedding_bits)
  }
  function similarity() { # cosine of query and item: 0.83; reads a page of disk for an item that is not cached
    expression: sum(query(q) * attribute(embedding))
  }
  first-phase {
    expression: coarse
  }
  second-phase {
    expression: 10 + similarity
    rerank-count: 300
  }
  match-features: similarity coarse
}
