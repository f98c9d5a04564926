rank-profile ablation_queue_image inherits three_queues {
  # Three queues without the neighbours of clicked images. What only that queue found stays a hit, with score 0.

  function from_images() { # 0
    expression: 0
  }
}
