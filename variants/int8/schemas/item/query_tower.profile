rank-profile query_tower {
  first-phase { # in memory; 0 where no nearestNeighbor is asked
    expression: closeness(field, embedding_int8)
  }
  second-phase { # reads the paged vectors of the best 100 of each node
    expression: 10 + similarity
    rerank-count: 100
  }
}
