rank-profile ablation_query_text inherits query_tower {
  # The tower without the words of the query: CLS and SEP only, so the history alone speaks.

  function no_tokens() { # [0, 0, …]
    expression: tensor<float>(d0[14])(0)
  }
  function input_ids() { # [[2, 3, 0, …]]
    expression: customTokenInputIds(2, 3, 16, no_tokens)
  }
  function attention_mask() { # [[1, 1, 0, …]]
    expression: tokenAttentionMask(16, no_tokens)
  }
}
