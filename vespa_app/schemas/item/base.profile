rank-profile base {
  # What all profiles share: the types of the query inputs, and how filters and nearest neighbours meet.

  inputs {
    query(q) tensor<float>(x[128])     # the query vector
    query(i2i) tensor<float>(x[128])   # what the user clicked, as one vector
    query(image) tensor<float>(x[128]) # the images of what the user clicked, as one vector
  }

  # Filters of a shop are narrow (a category, in stock, this market) and shared by many queries, so they are evaluated first,
  # into a bit vector. Hit ratio of the filter below 5 %: exact search over what it leaves, whole recall, and at 128 bfloat16
  # dimensions cheaper than a graph walk that keeps meeting filtered items. Below 30 %: the graph is walked along items that
  # pass the filter, exploring a bit wider than the default 0.01, since categories lie in clusters. Above: filter while walking.
  approximate-threshold: 0.05
  filter-first-threshold: 0.3
  filter-first-exploration: 0.1
  # Never post-filter: it can return fewer items than asked when the filter and the query pull apart.
  post-filter-threshold: 1.0
}
