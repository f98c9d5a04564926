rank-profile personal {
  # One second phase does both the float re-ranking and the user's part.
  second-phase {
    expression: 10 + similarity + query(affinity_weight) * affinity
    rerank-count: 300
  }
  match-features: similarity affinity
}
