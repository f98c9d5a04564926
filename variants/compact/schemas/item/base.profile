rank-profile base {
  # As the default package's base, with the bits that the graph is searched by beside each float vector.

  inputs {
    query(q) tensor<float>(x[128])         # the query vector
    query(q_bits) tensor<int8>(x[16])      # its signs: embed(text, @query) into this type binarises
    query(i2i) tensor<float>(x[128])       # what the user clicked, as one vector
    query(i2i_bits) tensor<int8>(x[16])
    query(image) tensor<float>(x[128])     # the images of what the user clicked, as one vector
    query(image_bits) tensor<int8>(x[16])
  }

  # A hamming distance costs a few instructions, so exact search behind a filter pays up to a higher hit ratio than with floats.
  approximate-threshold: 0.1
  filter-first-threshold: 0.3
  filter-first-exploration: 0.1
  post-filter-threshold: 1.0
}
