rank-profile explain inherits query_tower {
  # Why is this item here? Orders as query_tower and returns each part's share as match-features. Runs the tower four times: for people
  # who look, not for traffic. A share is what the score loses without that part; shares do not add up to the score.

  function zero_weight() { # [[0, 0, …]]
    expression: tensor<float>(d0[1],d1[20])(0)
  }
  function zero_text() { # [[[0, 0, …], …]]
    expression: tensor<float>(d0[1],d1[20],d2[128])(0)
  }
  function zero_image() { # [[[0, 0, …], …]]
    expression: tensor<float>(d0[1],d1[20],d2[128])(0)
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
    input history_text: zero_text
    input history_image: history_image
    input history_weight: history_weight
    output embedding: embedding
  }
  onnx-model tower_without_history_image {
    file: models/query_tower.onnx
    input input_ids: input_ids
    input attention_mask: attention_mask
    input history_text: history_text
    input history_image: zero_image
    input history_weight: history_weight
    output embedding: embedding
  }

  # The query tower's parts
  function share_query_text() { # cosine of the item and the query without a person: 0.71
    expression: sum(rename(reduce(onnx(tower_without_history).embedding, sum, d0), d1, x) * attribute(embedding))
  }
  function share_history() { # what the person adds: 0.08
    expression: similarity - share_query_text
  }
  function share_history_text() { # what the words of the clicked items add: 0.03
    expression: similarity - sum(rename(reduce(onnx(tower_without_history_text).embedding, sum, d0), d1, x) * attribute(embedding))
  }
  function share_history_image() { # what the pictures of the clicked items add: 0.05
    expression: similarity - sum(rename(reduce(onnx(tower_without_history_image).embedding, sum, d0), d1, x) * attribute(embedding))
  }

  # The experts, each in its own space: clicked items against this item
  function history_total() { # 3.2
    expression: sum(query(history_weight))
  }
  function expert_text() { # weighted mean cosine of word features: 0.64; 0 for a stranger
    expression: if (history_total > 0, sum(rename(reduce(query(history_weight) * query(history_text), sum, d0, d1), d2, x) * attribute(text_feature)) / history_total, 0)
  }
  function expert_image() { # weighted mean cosine of pictures: 0.58; 0 for a stranger or an item without a picture
    expression: if (history_total > 0, sum(rename(reduce(query(history_weight) * query(history_image), sum, d0, d1), d2, x) * attribute(image_embedding)) / history_total, 0)
  }

  # The queues, where the query labels them as three_queues does
  function queue_q2i() { # 0.86; 0 where that queue did not find the item
    expression: closeness(label, q2i)
  }
  function queue_i2i() { # 0.91
    expression: closeness(label, i2i)
  }
  function queue_image() { # 0.74
    expression: closeness(label, image)
  }
  function lexical() { # 7.2
    expression: bm25(title) + 0.5 * bm25(description)
  }
  match-features: similarity share_query_text share_history share_history_text share_history_image expert_text expert_image queue_q2i queue_i2i queue_image lexical
}
