rank-profile ablation_queue_i2i inherits three_queues {
  # Three queues without the neighbours of clicked items. What only that queue found stays a hit, with score 0.

  function from_clicks() { # 0
    expression: 0
  }
}
