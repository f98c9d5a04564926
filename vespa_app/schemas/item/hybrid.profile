rank-profile hybrid inherits base {
  # Words and vectors by reciprocal rank fusion: needs no tuning, and no score of one side can drown the other.
  # The query joins nearestNeighbor and userInput by "or"; each function has a value for what only the other side found.

  function lexical() { # 7.2; 0 where no word matched
    expression: bm25(title_and_category) + 0.5 * bm25(description)
  }
  function semantic() { # cosine: 0.83; closeness() is 1 / (2 - cosine), and 0 where no nearestNeighbor is asked
    expression: sum(query(q) * attribute(embedding))
  }
  function candidate() { # who enters the fusion, both sides bounded by 1: 1.25
    expression: semantic + lexical / (lexical + 10)
  }
  first-phase {
    expression: candidate
  }
  global-phase {
    expression: reciprocal_rank_fusion(lexical, semantic)
    rerank-count: 200
  }
  match-features: lexical semantic
}
