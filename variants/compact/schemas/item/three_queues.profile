rank-profile three_queues {
  # The first phase stays in memory, as in hybrid; ann's second one orders the best 300 of each node by the paged vectors.
  function coarse() { # 1 - differing bits / 64, about the cosine to the query vector alone: 0.52
    expression: 1 - sum(hamming(query(q_bits), attribute(embedding_bits))) / 64
  }
  first-phase {
    expression: coarse
  }
}
