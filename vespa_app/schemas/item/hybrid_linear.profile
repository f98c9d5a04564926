rank-profile hybrid_linear inherits hybrid {
  # Words and vectors as training found best on queries that it had held out: by a weighted sum of scores scaled to [0, 1] over the
  # candidates, or by the fusion of hybrid where no weight was clearly better. The weight is the first if(…), 1 less it the second.

  constants {
    mix_alpha tensor<float>(x[1]): file: models/mix_alpha.json # the share of the words, -1 for the fusion; mrse export writes it
  }
  inputs {
    query(alpha) double: -1 # the share of the words, from 0 to 1, instead of the one in mix_alpha
  }
  global-phase {
    expression: if(query(alpha) < 0 && sum(constant(mix_alpha)) < 0, reciprocal_rank_fusion(lexical, semantic), if(query(alpha) < 0, sum(constant(mix_alpha)), query(alpha)) * normalize_linear(lexical) + if(query(alpha) < 0, 1 - sum(constant(mix_alpha)), 1 - query(alpha)) * normalize_linear(semantic))
    rerank-count: 200
  }
}
