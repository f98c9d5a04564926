rank-profile ablation_history_image inherits query_tower {
  # The tower with the words of the clicked items, without their images.

  function history_image() { # [[[0, 0, …], …]]
    expression: tensor<float>(d0[1],d1[20],d2[128])(0)
  }
}
