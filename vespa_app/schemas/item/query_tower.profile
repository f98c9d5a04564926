rank-profile query_tower inherits base {
  # The whole query tower inside Vespa: token ids from embed(tokenizer, @query), the history as query inputs. All inputs are of the query,
  # so the graph runs once a query and thread, not once an item. It ranks; it cannot retrieve: pair it with nearestNeighbor over query(q).
  # A history that is not sent is zeros, which is the empty history.

  inputs {
    query(tokens) tensor<float>(d0[14])                         # piece ids without CLS and SEP, 0 where there is none
    query(history_text) tensor<float>(d0[1],d1[20],d2[128])     # text_feature of clicked items, newest first
    query(history_image) tensor<float>(d0[1],d1[20],d2[128])    # image_embedding of the same items
    query(history_weight) tensor<float>(d0[1],d1[20])           # event weight x decay; 0 where there is no item
  }
  onnx-model query_tower {
    file: models/query_tower.onnx
    input input_ids: input_ids
    input attention_mask: attention_mask
    input history_text: query(history_text)
    input history_image: query(history_image)
    input history_weight: query(history_weight)
    output embedding: embedding
  }
  function input_ids() { # [[2, 41, 7, 3, 0, …]]: CLS pieces SEP padding
    expression: customTokenInputIds(2, 3, 16, query(tokens))
  }
  function attention_mask() { # [[1, 1, 1, 1, 0, …]]
    expression: tokenAttentionMask(16, query(tokens))
  }
  function query_vector() { # x[128], unit norm: [0.08, -0.11, …]
    expression: rename(reduce(onnx(query_tower).embedding, sum, d0), d1, x)
  }
  function similarity() { # cosine of the personal query vector and the item: 0.79
    expression: sum(query_vector * attribute(embedding))
  }
  first-phase {
    expression: similarity
  }
  match-features: similarity
}
