rank-profile ann inherits base {
  # Q2I: the order of the nearest neighbours. The default for plain semantic search.

  function similarity() { # cosine of query and item: 0.83
    expression: sum(query(q) * attribute(embedding))
  }
  first-phase {
    expression: closeness(field, embedding)
  }
  match-features: similarity closeness(field, embedding)
}
