rank-profile bm25 inherits base {
  # Words alone: the baseline, and what to fall back to when a model is being replaced.

  function lexical() { # a title hit counts twice a description hit: 7.2
    expression: bm25(title) + 0.5 * bm25(description)
  }
  first-phase {
    expression: lexical
  }
  match-features: lexical bm25(title) bm25(description)
}
