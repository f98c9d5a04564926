rank-profile hybrid_linear inherits hybrid {
  # Words and vectors as training found best on queries that it had held out: by a weighted sum, weight * evidence + (1 - weight) *
  # semantic, or by the fusion of hybrid where no weight was clearly better.

  constants {
    mix_alpha tensor<float>(x[1]): file: models/mix_alpha.json # the share of the words, -1 for the fusion; mrse export writes it
  }
  inputs {
    query(alpha) double: -1 # the share of the words, from 0 to 1, instead of the one in mix_alpha
  }
  function evidence() { # how much the words say: one common word little, several rare ones much: 0.11
    expression: lexical * lexical / (lexical * lexical + 400)
  }
  global-phase {
    expression: if(query(alpha) < 0 && sum(constant(mix_alpha)) < 0, reciprocal_rank_fusion(lexical, semantic), semantic + if(query(alpha) < 0, sum(constant(mix_alpha)), query(alpha)) * (evidence - semantic))
    rerank-count: 200
  }
}
