rank-profile hybrid {
  # The first phase stays in memory, the fusion of the best 200 reads the paged vectors.
  function coarse() { # cosine but for the rounding of cells: 0.828; from memory
    expression: sum(query(q) * attribute(embedding_int8)) / 127
  }
  function semantic() { # cosine: 0.83; reads a page of disk for an item that is not cached
    expression: sum(query(q) * attribute(embedding))
  }
  function candidate() { # who enters the fusion, both sides bounded by 1: 1.25
    expression: coarse + lexical / (lexical + 10)
  }
  second-phase {
    expression: 10 + semantic + lexical / (lexical + 10)
    rerank-count: 200
  }
}
