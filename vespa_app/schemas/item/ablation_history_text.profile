rank-profile ablation_history_text inherits query_tower {
  # The tower with the images of the clicked items, without their words.

  function history_text() { # [[[0, 0, …], …]]
    expression: tensor<float>(d0[1],d1[20],d2[128])(0)
  }
}
