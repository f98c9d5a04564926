rank-profile base {
  # As the default package's base, with the whole numbers that the graph is searched by beside each float vector: round(127 x cells).
  # Vespa cuts a query's cells to the field's int8, so a float unit vector would become zeros: nearestNeighbor takes the *_int8 inputs.
  # They are declared as float, because embed() into an int8 tensor makes bits.

  inputs {
    query(q) tensor<float>(x[128])          # the query vector
    query(q_int8) tensor<float>(x[128])     # round(127 x): embed(text_int8, @query)
    query(i2i) tensor<float>(x[128])        # what the user clicked, as one vector
    query(i2i_int8) tensor<float>(x[128])
    query(image) tensor<float>(x[128])      # the images of what the user clicked, as one vector
    query(image_int8) tensor<float>(x[128])
  }

  # As the default package's, whose reasons hold for int8 too.
  approximate-threshold: 0.05
  filter-first-threshold: 0.3
  filter-first-exploration: 0.1
  post-filter-threshold: 1.0
}
