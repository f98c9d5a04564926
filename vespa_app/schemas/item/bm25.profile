rank-profile bm25 inherits base {
  # Words alone: the baseline, and what to fall back to when a model is being replaced.

  function lexical() { # a hit in the title or category counts twice a hit in the description: 7.2
    expression: bm25(title_and_category) + 0.5 * bm25(description)
  }
  first-phase {
    expression: lexical
  }
  match-features: lexical bm25(title_and_category) bm25(description)
}
