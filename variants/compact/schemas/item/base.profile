rank-profile base {
  # The bits that the graph is searched by, beside each float vector.
  inputs {
    query(q_bits) tensor<int8>(x[16])      # its signs: embed(text, @query) into this type binarises
    query(i2i_bits) tensor<int8>(x[16])
    query(image_bits) tensor<int8>(x[16])
  }
  # A hamming distance costs a few instructions, so exact search behind a filter pays up to a higher hit ratio than with floats. Below 30 %
  # the graph is walked along items that pass the filter.
  approximate-threshold: 0.1
}
