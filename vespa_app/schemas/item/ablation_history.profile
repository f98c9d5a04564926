rank-profile ablation_history inherits query_tower {
  # The tower without the user: equal to embed(text, @query).

  function history_weight() { # [[0, 0, …]]
    expression: tensor<float>(d0[1],d1[20])(0)
  }
}
