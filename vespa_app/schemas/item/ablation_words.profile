rank-profile ablation_words inherits hybrid {
  # The candidates of hybrid, ordered by the vector alone.

  global-phase {
    expression: semantic
    rerank-count: 200
  }
}
