rank-profile base {
  # The whole numbers that the graph is searched by, beside each float vector: round(127 x cells). Vespa cuts a query's cells to the
  # field's int8, so a float unit vector would become zeros: nearestNeighbor takes the *_int8 inputs. They are declared as float, because
  # embed() into an int8 tensor makes bits.
  inputs {
    query(q_int8) tensor<float>(x[128])     # round(127 x): embed(text_int8, @query)
    query(i2i_int8) tensor<float>(x[128])
    query(image_int8) tensor<float>(x[128])
  }
}
