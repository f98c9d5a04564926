rank-profile exact inherits base {
  # The truth to hold the graph against: use with "approximate: false", or with "where true" and a filter. Scores every match.

  function similarity() { # cosine of query and item: 0.83
    expression: sum(query(q) * attribute(embedding))
  }
  first-phase {
    expression: similarity
  }
  match-features: similarity
}
