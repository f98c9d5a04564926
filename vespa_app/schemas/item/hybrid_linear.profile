rank-profile hybrid_linear inherits hybrid {
  # Words and vectors by a weighted sum of scores scaled to [0, 1] over the candidates. Needs query(alpha) tuned on judgments.

  inputs {
    query(alpha) double: 0.3 # the share of the words
  }
  global-phase {
    expression: query(alpha) * normalize_linear(lexical) + (1 - query(alpha)) * normalize_linear(semantic)
    rerank-count: 200
  }
}
