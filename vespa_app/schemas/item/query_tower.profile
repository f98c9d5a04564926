rank-profile query_tower inherits base {
  # The whole query tower inside Vespa: token ids from embed(tokenizer, @query), the history as query inputs. All of that is of the
  # query, so the graph runs once a query and thread, not once an item. It ranks; it cannot retrieve: pair it with nearestNeighbor.
  # A dense query input that is not sent is zeros on the content node: the empty history.

  inputs {
    query(tokens) tensor<float>(d0[14])                      # token ids without CLS and SEP, 0 where there is none
    query(history_text) tensor<float>(d0[1],d1[20],d2[128])  # text_feature of the clicked items, newest first
    query(history_image) tensor<float>(d0[1],d1[20],d2[128]) # image_embedding of the same items
    query(history_weight) tensor<float>(d0[1],d1[20])        # event weight x decay; 0 where there is no item
  }
  # One function an input, so that an ablation_* profile can take one away by overriding it.
  function input_ids() { # [[2, 41, 7, 3, 0, …]]: CLS tokens SEP padding
    expression: customTokenInputIds(2, 3, 16, query(tokens))
  }
  function attention_mask() { # [[1, 1, 1, 1, 0, …]]
    expression: tokenAttentionMask(16, query(tokens))
  }
  function history_text() { # [[[0.12, -0.05, …], …]]
    expression: query(history_text)
  }
  function history_image() { # [[[0.02, 0.17, …], …]]
    expression: query(history_image)
  }
  function history_weight() { # [[1.0, 0.87, 2.4, 0, …]]
    expression: query(history_weight)
  }
  onnx-model query_tower {
    file: models/query_tower.onnx
    input input_ids: input_ids
    input attention_mask: attention_mask
    input history_text: history_text
    input history_image: history_image
    input history_weight: history_weight
    output embedding: embedding
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
