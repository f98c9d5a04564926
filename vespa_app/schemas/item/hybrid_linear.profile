rank-profile hybrid_linear inherits hybrid {
  # Words and vectors as training found best on queries that it had held out: by a weighted sum, weight * evidence + (1 - weight) *
  # semantic, or by the fusion of hybrid where no weight was clearly better. Popular items are lifted where those queries said so.

  constants {
    mix_alpha tensor<float>(x[1]): file: models/mix_alpha.json # the share of the words, -1 for the fusion; mrse export writes it
    mix_popularity tensor<float>(x[1]): file: models/mix_popularity.json # the weight of log_popularity, 0 where it is no help
  }
  inputs {
    query(alpha) double: -1 # the share of the words, from 0 to 1, instead of the one in mix_alpha
    query(popularity) double: -1 # the weight of log_popularity, 0 for none, instead of the one in mix_popularity
  }
  function evidence() { # how much the words say: one common word little, several rare ones much: 0.11
    expression: lexical * lexical / (lexical * lexical + 400)
  }
  function log_popularity() { # 4.6; 0 for an item without a popularity, which Vespa has as NaN
    expression: if(isNan(attribute(popularity)), 0, log(1 + max(0, attribute(popularity))))
  }
  global-phase { # 0.03: about the best score of a fusion, where a weighted sum has 1
    expression: if(query(alpha) < 0 && sum(constant(mix_alpha)) < 0, reciprocal_rank_fusion(lexical, semantic) + 0.03 * if(query(popularity) < 0, sum(constant(mix_popularity)), query(popularity)) * log_popularity, semantic + if(query(alpha) < 0, sum(constant(mix_alpha)), query(alpha)) * (evidence - semantic) + if(query(popularity) < 0, sum(constant(mix_popularity)), query(popularity)) * log_popularity)
    rerank-count: 200
  }
  match-features: lexical semantic log_popularity
}
