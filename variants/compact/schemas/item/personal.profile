rank-profile personal inherits ann {
  # As the default package's personal; one second phase does both the float re-ranking and the user.

  inputs {
    query(clicked) tensor<float>(item{},x[128]): { } # embeddings of clicked items
    query(clicked_weight) tensor<float>(item{}): { } # their event weight x decay
    query(sharpness) double: 8.0                      # how much the nearest clicked item outweighs the others
    query(affinity_weight) double: 0.3
  }
  function likeness() { # cosine to each clicked item: {a: 0.91, b: 0.12}
    expression: sum(query(clicked) * attribute(embedding), x)
  }
  function attention() { # {a: 1450.0, b: 1.3}
    expression: exp(query(sharpness) * likeness) * query(clicked_weight)
  }
  function affinity() { # attention-weighted mean of likeness: 0.9; 0 for a stranger
    expression: if (sum(attention) > 0, sum(attention * likeness) / sum(attention), 0)
  }
  second-phase {
    expression: 10 + similarity + query(affinity_weight) * affinity
    rerank-count: 300
  }
  match-features: similarity affinity
}
