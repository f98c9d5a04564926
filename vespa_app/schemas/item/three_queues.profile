rank-profile three_queues inherits ann {
  # The paper's three recall queues in one query, by label: q2i (query vector), i2i (clicked items), image (their images). The queues bring
  # the candidates; what orders them is how close they are to the query vector, which the tower made with the user. A queue's own closeness
  # orders that queue alone: neighbours of twenty clicked items would stand above what was searched for.
  # itemRawScore is the closeness of what a queue found, and 0 for the rest; closeness(label, …) would be computed for every hit, found by
  # that queue or not, and closeness(field, embedding) is the best of two queues' here.

  function from_query() { # 0.86
    expression: itemRawScore(q2i)
  }
  function from_clicks() { # 0.91
    expression: itemRawScore(i2i)
  }
  function from_images() { # 0.74
    expression: itemRawScore(image)
  }
  first-phase { # ann's closeness, of the query vector alone: 0.86
    expression: 1 / (2 - similarity)
  }
  match-features: similarity from_query from_clicks from_images
}
