rank-profile explain inherits query_tower {
  # Why is this item here? Orders as query_tower and returns each part's share as match-features: input_*, expert_*. A share is
  # what the score loses without that part; negative: the part speaks against the item. Shares do not add up to the score. Runs the
  # tower six times: to inspect one query, not for traffic.

  # The query tower's inputs: the score is the cosine of query_vector and the item
  function no_tokens() { # [0, 0, …]
    expression: tensor<float>(d0[14])(0)
  }
  function zero_ids() { # [[2, 3, 0, …]]
    expression: customTokenInputIds(2, 3, 16, no_tokens)
  }
  function zero_mask() { # [[1, 1, 0, …]]
    expression: tokenAttentionMask(16, no_tokens)
  }
  function zero_weight() { # [[0, 0, …]]
    expression: tensor<float>(d0[1],d1[20])(0)
  }
  function zero_entries() { # [[[0, 0, …], …]]
    expression: tensor<float>(d0[1],d1[20],d2[128])(0)
  }
  onnx-model tower_without_query_text {
    file: models/query_tower.onnx
    input input_ids: zero_ids
    input attention_mask: zero_mask
    input history_text: history_text
    input history_image: history_image
    input history_weight: history_weight
    output embedding: embedding
  }
  onnx-model tower_without_history {
    file: models/query_tower.onnx
    input input_ids: input_ids
    input attention_mask: attention_mask
    input history_text: history_text
    input history_image: history_image
    input history_weight: zero_weight
    output embedding: embedding
  }
  onnx-model tower_without_history_text {
    file: models/query_tower.onnx
    input input_ids: input_ids
    input attention_mask: attention_mask
    input history_text: zero_entries
    input history_image: history_image
    input history_weight: history_weight
    output embedding: embedding
  }
  onnx-model tower_without_history_image {
    file: models/query_tower.onnx
    input input_ids: input_ids
    input attention_mask: attention_mask
    input history_text: history_text
    input history_image: zero_entries
    input history_weight: history_weight
    output embedding: embedding
  }
  function input_query_text() { # what the words of the query bring: 0.64
    expression: similarity - sum(rename(reduce(onnx(tower_without_query_text).embedding, sum, d0), d1, x) * attribute(embedding))
  }
  function input_history() { # what the user brings: 0.08; 0 for a stranger
    expression: similarity - sum(rename(reduce(onnx(tower_without_history).embedding, sum, d0), d1, x) * attribute(embedding))
  }
  function input_history_text() { # what the clicked items themselves bring: 0.03
    expression: similarity - sum(rename(reduce(onnx(tower_without_history_text).embedding, sum, d0), d1, x) * attribute(embedding))
  }
  function input_history_image() { # what the images of the clicked items bring: 0.05
    expression: similarity - sum(rename(reduce(onnx(tower_without_history_image).embedding, sum, d0), d1, x) * attribute(embedding))
  }

  # The query tower's experts, each zeroed before the fusion. The item's side is fixed in its embedding.
  onnx-model query_experts {
    file: models/query_experts.onnx
    input input_ids: input_ids
    input attention_mask: attention_mask
    input history_text: history_text
    input history_image: history_image
    input history_weight: history_weight
    output without_vbert: without_vbert
    output without_light_bert: without_light_bert
    output without_ft_att: without_ft_att
    output without_history: without_history
  }
  function expert_vbert() { # words together with the images of clicked items: 0.21
    expression: similarity - sum(rename(reduce(onnx(query_experts).without_vbert, sum, d0), d1, x) * attribute(embedding))
  }
  function expert_light_bert() { # words in their order: 0.17
    expression: similarity - sum(rename(reduce(onnx(query_experts).without_light_bert, sum, d0), d1, x) * attribute(embedding))
  }
  function expert_ft_att() { # tokens and their n-grams: 0.26
    expression: similarity - sum(rename(reduce(onnx(query_experts).without_ft_att, sum, d0), d1, x) * attribute(embedding))
  }
  function expert_history() { # attention over the clicked items: 0.04; 0 for a stranger
    expression: similarity - sum(rename(reduce(onnx(query_experts).without_history, sum, d0), d1, x) * attribute(embedding))
  }

  # The clicked items against this item, in the features' own spaces
  function history_total() { # 3.2
    expression: sum(query(history_weight))
  }
  function likeness_text() { # weighted mean cosine of the items themselves: 0.64; 0 for a stranger
    expression: if (history_total > 0, sum(rename(reduce(query(history_weight) * query(history_text), sum, d0, d1), d2, x) * attribute(text_feature)) / history_total, 0)
  }
  function likeness_image() { # weighted mean cosine of images: 0.58; 0 for a stranger or an item without an image
    expression: if (history_total > 0, sum(rename(reduce(query(history_weight) * query(history_image), sum, d0, d1), d2, x) * attribute(image_embedding)) / history_total, 0)
  }

  # The queues, where the query labels them as the query profiles three_queues and explain do: the closeness by which each found the item.
  function from_query() { # 0.86; 0 where that queue did not find the item
    expression: itemRawScore(q2i)
  }
  function from_clicks() { # 0.91
    expression: itemRawScore(i2i)
  }
  function from_images() { # 0.74
    expression: itemRawScore(image)
  }
  function lexical() { # 7.2
    expression: bm25(title_and_category) + 0.5 * bm25(description)
  }
  match-features: similarity input_query_text input_history input_history_text input_history_image expert_vbert expert_light_bert expert_ft_att expert_history likeness_text likeness_image from_query from_clicks from_images lexical
}
