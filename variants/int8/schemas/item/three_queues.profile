rank-profile three_queues {
  # The first phase stays in memory, as in hybrid; ann's second one orders the best 100 of each node by the paged vectors.
  function coarse() { # cosine to the query vector alone, but for the rounding of cells: 0.828
    expression: sum(query(q) * attribute(embedding_int8)) / 127
  }
  first-phase {
    expression: coarse
  }
}
