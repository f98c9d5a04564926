rank-profile hybrid {
  # The first phase stays in memory, the fusion of the best 200 reads the paged vectors.
  function coarse() { # 1 - differing bits / 64, about the cosine: 0.52; from the bits in memory
    expression: 1 - sum(hamming(query(q_bits), attribute(embedding_bits))) / 64
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
